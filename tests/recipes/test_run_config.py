import dataclasses
import inspect
import math

import pytest

from infopro import recipes
from infopro.errors import BadConfiguration, UnknownName
from infopro.recipes import RunConfig


def test_the_defaults_are_the_papers_cell_without_its_cuts() -> None:
    cell = recipes.load("cifar10-resnet32-k4-infopro-contrast").config
    assert dataclasses.replace(cell, cuts=None) == RunConfig()
    assert recipes.problems(RunConfig()) == []


def test_every_field_says_what_it_is_on_its_line() -> None:
    lines = inspect.getsource(RunConfig).splitlines()
    for field in dataclasses.fields(RunConfig):
        (line,) = [line for line in lines if line.startswith(f"    {field.name}: ")]
        assert "  # " in line


def test_a_configuration_is_frozen_and_takes_keywords_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().epochs = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        RunConfig("cifar_resnet32")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_modules", 0),
        ("balance", "width"),
        ("temperature", 0.0),
        ("temperature", math.nan),
        ("epochs", 0),
        ("batch_size", 0),
        ("batch_size", 1),  # contrast: no positives
        ("optimizer", "adam"),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("learning_rate", "fast"),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1e-4),
        ("schedule", "step"),
        ("warmup_epochs", -1.0),
        ("precision", "float16"),
        ("image_size", 0),
        ("seed", -1),
        ("reconstruction_weight", -1.0),
        ("task_weight", (1.0, math.nan)),
        ("task_head", "9c9f"),
        ("decoder", "none-such"),
        ("objective", "infopro-kontrast"),
        ("parallel", "sideways"),
        ("checkpoint", "some"),
        ("views", 2),  # which only `cached` reads
        ("replay", 9),  # which only `decoupled` reads
    ],
)
def test_each_value_out_of_range_is_one_problem_that_names_it(field: str, value: object) -> None:
    config = dataclasses.replace(RunConfig(), **{field: value})
    (problem,) = recipes.problems(config)
    assert str(value) in problem
    assert field.replace("_", " ") in problem.replace("_", " ")
    with pytest.raises(BadConfiguration) as caught:
        recipes.check(config)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("momentum", 0.0),
        ("weight_decay", 0.0),
        ("warmup_epochs", 0.0),
        ("warmup_epochs", 200.0),
        ("image_size", 1),
        ("reconstruction_weight", None),
        ("seed", 2**63 - 1),
        ("epochs", 1),
        ("batch_size", 2),
        ("checkpoint", "everything"),
    ],
)
def test_values_on_the_edge_are_allowed(field: str, value: object) -> None:
    config = dataclasses.replace(RunConfig(task_weight=1.0), **{field: value})
    assert recipes.problems(config) == []


def test_all_problems_are_raised_at_once() -> None:
    config = RunConfig(epochs=0, seed=-5, cuts=("layer1.0", "layer1.0"), objective="gredy")
    with pytest.raises(BadConfiguration) as caught:
        recipes.check(config)
    message = str(caught.value)
    assert message.startswith("5 problems: (1) epochs is 0")
    for part in (
        "seed is -5",
        "2 cuts make 3 modules",
        "name a block twice: layer1.0",
        "did you mean greedy",
    ):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["synchronise_batch_norm", "gather_contrast"])
def test_what_replicas_share_is_allowed_in_one_process_and_refused_where_there_are_none(name: str) -> None:
    assert recipes.problems(dataclasses.replace(RunConfig(), **{name: True})) == []
    (problem,) = recipes.problems(dataclasses.replace(RunConfig(), parallel="cached", **{name: True}))
    assert problem == f"{name} is set but parallel is 'cached', allowed: none, pipeline, data"


@pytest.mark.parametrize("mode", ["pipeline", "data", "cached", "decoupled"])
def test_compiled_modules_run_in_one_process(mode: str) -> None:
    assert recipes.problems(RunConfig(compile=True)) == []
    (problem,) = recipes.problems(RunConfig(compile=True, parallel=mode))  # type: ignore[arg-type]
    assert problem == f"compile is set but parallel is {mode!r}, allowed with: none"


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_gradients_are_clipped_to_a_norm(value: float) -> None:
    assert recipes.problems(RunConfig(clip_gradients=value)) == [
        f"clip_gradients is {value!r}, allowed: a number above 0, or null"
    ]
    assert recipes.problems(RunConfig(on_divergence="warn"))  # type: ignore[arg-type]
    assert recipes.problems(RunConfig(on_spike="skip"))  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["pipeline", "data", "cached", "decoupled"])
def test_one_process_only_leaves_steps_out_or_goes_back(mode: str) -> None:
    for options in ({"on_divergence": "skip"}, {"on_divergence": "reload"}, {"on_spike": "reload"}):
        (problem,) = recipes.problems(RunConfig(parallel=mode, **options))  # type: ignore[arg-type]
        ((name, value),) = options.items()
        assert problem == f"{name} is {value!r} but parallel is {mode!r}, allowed with: none"
    assert recipes.problems(RunConfig(on_spike="stop", parallel=mode)) == []  # type: ignore[arg-type]
    clipped = RunConfig(clip_gradients=1.0, parallel=mode)  # type: ignore[arg-type]
    assert recipes.problems(clipped) == []


@pytest.mark.parametrize("value", [0.0, 1.0, -0.5, 2.0, float("nan")])
def test_averaged_weights_have_a_decay_below_1(value: float) -> None:
    assert recipes.problems(RunConfig(average_weights=0.999)) == []
    (problem,) = recipes.problems(RunConfig(average_weights=value))
    assert problem == f"average_weights is {value!r}, allowed: between 0 and 1, or null"


@pytest.mark.parametrize("mode", ["pipeline", "data", "cached", "decoupled"])
def test_weights_are_averaged_where_the_loop_steps_the_optimizer(mode: str) -> None:
    found = recipes.problems(RunConfig(average_weights=0.9, parallel=mode))  # type: ignore[arg-type]
    expected = f"average_weights is set but parallel is {mode!r}, allowed: none, pipeline, data"
    assert found == ([expected] if mode in ("cached", "decoupled") else [])


@pytest.mark.parametrize("mode", ["pipeline", "cached", "decoupled"])
def test_one_module_has_nothing_to_run_beside(mode: str) -> None:
    config = RunConfig(objective="end-to-end", num_modules=1, parallel=mode)  # type: ignore[arg-type]
    assert recipes.problems(config) == [f"parallel is '{mode}' but num_modules is 1, allowed: none, data"]


def test_cuts_that_contradict_the_number_of_modules() -> None:
    config = dataclasses.replace(recipes.load("cifar10-resnet32-k4-greedy").config, num_modules=8)
    (problem,) = recipes.problems(config)
    assert "num_modules is 8" in problem and "set cuts to null" in problem


@pytest.mark.parametrize(
    ("num_modules", "reconstruction", "task", "idle"),
    [
        (4, (5.0, 0.0), (1.0, 0.0), ["last"]),
        (2, (5.0, 0.0), (1.0, 0.0), []),  # of K = 2 only the first counts
        (4, (0.0, 1.0), (0.0, 1.0), ["first"]),
        (4, None, 0.0, ["first", "last"]),
        (1, None, 0.0, []),
        (4, 1.0, 0.0, []),
    ],
)
def test_a_module_that_nothing_trains_is_a_problem(
    num_modules: int, reconstruction: object, task: object, idle: list[str]
) -> None:
    config = RunConfig(num_modules=num_modules, reconstruction_weight=reconstruction, task_weight=task)
    found = recipes.problems(config)
    assert len(found) == len(idle)
    assert all(f"for the {word} local module" in problem for word, problem in zip(idle, found, strict=True))


def test_end_to_end_is_one_module() -> None:
    (problem,) = recipes.problems(RunConfig(objective="end-to-end"))
    assert "num_modules is 4, allowed: 1 for end-to-end" in problem
    assert recipes.problems(RunConfig(objective="end-to-end", num_modules=1)) == []


def test_weights_are_no_matter_of_objectives_without_them() -> None:
    config = RunConfig(objective="greedy", reconstruction_weight=None, task_weight=0.0)
    assert recipes.problems(config) == []


def test_the_objective_gets_those_options_that_it_has() -> None:
    contrast = recipes.build_objective(RunConfig(temperature=0.5, task_head="1c1f"))
    assert contrast.temperature == 0.5
    assert contrast.reconstruction_weight == (6.0, 1.0) and contrast.task_weight == (0.0, 2.0)
    assert contrast.task_head == "1c1f"
    assert recipes.build_objective(RunConfig(objective="greedy")).task_head == "0c1f"
    assert recipes.build_objective(RunConfig(objective="dgl")).task_head == "mlp-sr"
    assert recipes.build_objective(RunConfig(objective="end-to-end")).name == "end-to-end"
    with pytest.raises(UnknownName, match="infopro-contrast"):
        recipes.build_objective(RunConfig(objective="infopro-kontrast"))
