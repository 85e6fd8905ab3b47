from dataclasses import fields, replace

import pytest

from infopro import recipes
from infopro.errors import BadConfiguration, UnknownName
from infopro.options import configuration, expanded, make_parser
from infopro.recipes import RunConfig
from infopro.sweep import list_methods, plan_cells

ISSUE = {"methods": ["greedy", "dgl", "infopro-softmax", "infopro-contrast"], "num_modules": [2, 4, 8, 16]}


def names(cells):
    return [cell.name for cell in cells]


def test_methods_times_modules_times_seeds():
    cells = plan_cells("cifar10-resnet32", **ISSUE, seeds=range(3))
    assert len(cells) == len(set(names(cells))) == 3 * (1 + 4 * 4)
    assert {cell.config.seed for cell in cells[:17]} == {0}, "seed by seed"
    assert sum(cell.config.num_modules == 1 for cell in cells) == 3
    without = plan_cells("cifar10-resnet32", **ISSUE, seeds=range(3), end_to_end=False)
    assert names(without) == [name for name in names(cells) if "end-to-end" not in name]


def test_a_cell_is_its_recipe_but_for_seed_and_overrides():
    (cell,) = plan_cells(
        "cifar10-resnet32",
        methods=["infopro-contrast"],
        num_modules=[8],
        seeds=[7],
        end_to_end=False,
        overrides={"epochs": 3},
    )
    recipe = recipes.load("cifar10-resnet32-k8-infopro-contrast")
    assert cell.config == replace(recipe.config, seed=7, epochs=3)
    assert cell.recipe == recipe.name and cell.note is None


def test_a_method_may_be_more_than_an_objective():
    (cell,) = plan_cells(
        "study-digits", methods=["no-reconstruction"], num_modules=[8], seeds=[0], end_to_end=False
    )
    assert cell.config.objective == "infopro-softmax" and cell.config.reconstruction_weight is None


def test_a_number_of_modules_without_a_recipe_takes_the_nearest_ones_settings():
    (cell,) = plan_cells("cifar10-resnet32", methods=["dgl"], num_modules=[6], seeds=[0], end_to_end=False)
    nearest = recipes.load("cifar10-resnet32-k8-dgl").config  # the larger of two that are equally near
    assert cell.config == replace(nearest, num_modules=6, cuts=None)
    assert "no dgl for K = 6" in cell.note


def test_without_a_family_the_defaults_are_swept():
    own = {"model": "demo_resnet", "data": "digits-on-photos", "cuts": None}
    cells = plan_cells(None, methods=["greedy"], num_modules=[1, 2], seeds=[0], overrides=own)
    assert names(cells) == ["end-to-end-seed0", "k2-greedy-seed0"]
    assert {cell.config.model for cell in cells} == {"demo_resnet"}
    assert cells[0].config.reconstruction_weight is None


@pytest.mark.parametrize("family", ["study-cifar10", None])
def test_train_reads_the_options_of_a_cell_as_its_configuration(family):
    """What `infopro train` makes of the words of `Cell.options` is the cell's own configuration."""
    cells = plan_cells(
        family,
        methods=["infopro-softmax"],
        num_modules=[4],
        seeds=[5],
        overrides={
            "task_weight": (0.5, 0.25),
            "momentum": 0.875,
            "compile": True,
            "reconstruction_weight": None,
        },
    )
    for cell in cells:
        base = recipes.load(cell.recipe).config if cell.recipe else RunConfig()
        parsed = make_parser(base).parse_args(expanded(["train", *cell.options()]))
        options = parsed.train
        options.recipe = cell.recipe
        assert configuration(options) == cell.config


def test_every_published_family_can_be_swept():
    families = {name.rsplit("-end-to-end", 1)[0] for name in recipes.list_recipes("*-end-to-end")}
    alone = {"cityscapes-deeplabv3-resnet101-60k"}  # a baseline that was published without another method
    for family in families - alone:
        methods = list_methods(family)
        cells = plan_cells(family, seeds=[0])
        trained = {cell.recipe for cell in cells} - {f"{family}-end-to-end"}
        assert trained == {f"{family}-k{k}-{method}" for method, numbers in methods.items() for k in numbers}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"family": "cifar10-resnet23"}, UnknownName, ["cifar10-resnet32"]),
        ({"family": "cifar10-resnet32", "methods": ["gredy"]}, UnknownName, ["greedy"]),
        ({"family": None, "methods": ["gredy"]}, UnknownName, ["greedy"]),
        ({"family": "digits-demo", "overrides": {"epochs": 0}}, BadConfiguration, ["epochs is 0"]),
        ({"family": "digits-demo", "seeds": []}, BadConfiguration, ["empty"]),
    ],
)
def test_mistakes_are_named(arguments, error, words):
    with pytest.raises(error) as caught:
        plan_cells(arguments.pop("family"), **{"seeds": [0], **arguments})
    assert all(word in str(caught.value) for word in words)


def test_nothing_is_left_out_of_the_options():
    """A field that options() forgot would silently train the recipe's own value."""
    changed = RunConfig(
        **{
            "model": "demo_resnet",
            "data": "some.npz",
            "objective": "greedy",
            "cuts": ("a", "b", "c"),
            "epochs": 7,
            "hold_out": 0.25,
        }
    )
    from infopro.sweep import Cell

    given = Cell(name="x", method="greedy", recipe=None, config=changed).options()
    default = RunConfig()
    expected = {f.name for f in fields(RunConfig) if getattr(changed, f.name) != getattr(default, f.name)}
    assert {word.split("=")[0].removeprefix("--").replace("-", "_") for word in given} == expected
