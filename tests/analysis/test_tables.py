import math

from infopro.analysis import (
    Analysis,
    BlockInformation,
    ModuleGradient,
    References,
    gradient_table,
    information_table,
)


def cells(table, first):
    """The words of the row that begins with this word."""
    return next(line.split() for line in table.splitlines() if line.split()[:1] == [first])


def analysis(*blocks, gradients=()):
    references = References(
        pixels=100, label_entropy=2.0, constant_cross_entropy=0.6, nuisance_entropy={"top": 1.0, "left": 1.5}
    )
    return Analysis(references=references, blocks=blocks, gradients=gradients)


def block(name, module, **values):
    return BlockInformation(block=name, depth=module, module=module, feature_shape=(4,), **values)


def test_means_and_deviations_over_probe_seeds():
    found = block(
        "layer1.0",
        2,
        linear_error=(12.5,),
        input_cross_entropy=(0.5, 0.4),
        task_information={"small": (1.0, 1.5), "large": (1.25, 1.25)},
        nuisance_information={"top": (0.5, 0.75), "left": (0.25, 0.5)},
    )
    table = information_table(analysis(block("input", 0, linear_error=(40.0,)), found), title="mine")
    assert table.startswith("mine\ninformation in nats; H(y) = 2.000, H(r) = 2.500;")
    assert " ".join(cells(table, "layer1.0")) == (
        "layer1.0 2 12.50 0.5500 ± 0.0707 15.0 ± 7.1 1.250 ± 0.354 1.250 ± 0.000 1.000 ± 0.354"
    )
    assert cells(table, "input") == ["input", "40.00"]


def test_what_was_not_estimated_has_no_column():
    table = information_table(analysis(block("relu", 1, linear_error=(5.0,))), title="mine")
    assert "linear" in table and "I(h,x)" not in table and "I(h,r)" not in table
    assert cells(table, "relu") == ["relu", "1", "5.00"]


def test_an_angle_that_does_not_exist_is_a_dash():
    gradients = (
        ModuleGradient(
            module=1, local_norm=(0.25, 0.75), end_to_end_norm=(2.0, 2.0), angle_degrees=(80.0, 90.0)
        ),
        ModuleGradient(module=2, local_norm=(0.0,), end_to_end_norm=(1.0,), angle_degrees=(math.nan,)),
    )
    table = gradient_table(analysis(gradients=gradients), title="mine")
    assert cells(table, "1") == ["1", "5.00e-01", "2.00e+00", "85.0", "±", "7.1"]
    assert cells(table, "2") == ["2", "0.00e+00", "1.00e+00", "-"]
