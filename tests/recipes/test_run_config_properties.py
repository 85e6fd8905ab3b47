"""Whatever is said to be a configuration: it is one, or is refused in one line."""

import dataclasses
import json
import math
import typing

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from infopro import recipes
from infopro.cli import main
from infopro.errors import InfoProError
from infopro.options import configuration, parse
from infopro.recipes import RunConfig, from_plain
from infopro.recipes._kinds import is_of_kind
from infopro.recipes._stored import plain

KINDS = typing.get_type_hints(RunConfig)
SAME_RESULT = ("none", "pipeline", "data")  # stored as one

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)
words = {
    "objective": st.sampled_from(
        ["infopro-contrast", "infopro-softmax", "greedy", "end-to-end", "dgl", "no"]
    ),
    "task_head": st.sampled_from(["auto", "0c1f", "no such head"]),
    "decoder": st.sampled_from(["auto", "no such decoder"]),
}


def of_kind(name):
    return words[name] if name in words else st.from_type(KINDS[name])


def some_fields(values):
    """Configurations with a few fields that are not as usual."""
    names = st.lists(st.sampled_from(sorted(KINDS)), max_size=6, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: values(name) for name in chosen})).map(
        lambda changes: RunConfig(**changes)
    )


@settings(max_examples=150, deadline=None, derandomize=True)
@given(some_fields(of_kind) | some_fields(lambda name: anything))
def test_problems_are_said_and_never_raised(config):
    found = recipes.problems(config)
    assert all(problem == problem.splitlines()[0] and len(problem) < 700 for problem in found)
    assert found or all(is_of_kind(getattr(config, name), kind) for name, kind in KINDS.items())


@settings(max_examples=150, deadline=None, derandomize=True)
@given(some_fields(of_kind))
def test_what_check_accepts_survives_json_and_yaml(config):
    if recipes.problems(config):
        return
    expected = dataclasses.replace(
        config, parallel="none" if config.parallel in SAME_RESULT else config.parallel
    )
    assert from_plain(json.loads(json.dumps(plain(config)))) == expected
    assert from_plain(yaml.safe_load(yaml.safe_dump(plain(config)))) == expected


def test_the_properties_are_not_idle():
    """Of what is drawn, enough is accepted, with fields that are not as usual."""
    accepted = []

    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(some_fields(of_kind))
    def draw(config):
        if config != RunConfig() and not recipes.problems(config):
            accepted.append(config)

    draw()
    assert len(accepted) > 10


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    json_values
    | st.dictionaries(st.sampled_from(sorted(KINDS)), json_values, max_size=5)
    | st.dictionaries(st.sampled_from(sorted(KINDS)), anything, max_size=5)
)
def test_garbage_is_a_configuration_or_an_error_of_one_line(values):
    try:
        config = from_plain(values)
    except InfoProError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert recipes.problems(config) == []


CHANGES = [
    {},
    {"cuts": ("layer1.1", "layer2.2", "layer3.0"), "reconstruction_weight": None, "task_weight": 1.0},
    {"task_weight": (0.25, 1e-9), "reconstruction_weight": 3},
    {"image_size": (30, 40), "crop": (20, 24), "scale": (0.5, 2.0), "class_weights": (1.0, 0.0, 2.5)},
    {"seed": 2**63 - 1, "learning_rate": 1e-300, "hold_out": 0.1, "on_bad_image": "skip"},
    {"data": "a folder/ü: 'quoted' #1", "clip_gradients": 0.5, "pretrained": True},
]


@pytest.mark.parametrize("changes", CHANGES)
def test_what_print_config_writes_is_read_back(tmp_path, capsys, changes):
    config = RunConfig(**changes)
    recipes.check(config)
    options = recipes.as_options(config, RunConfig())
    assert main(["train", *options, "--print_config"]) == 0
    (tmp_path / "config.yaml").write_text(capsys.readouterr().out)
    read, _ = parse(["train", "--config", str(tmp_path / "config.yaml")])
    assert configuration(read.train) == config


@pytest.mark.parametrize(
    ("value", "kind", "fits"),
    [
        (True, int, False),
        (1, float, True),
        (1.0, int, False),
        (math.inf, float, False),
        (2**63, int, False),
        ((1, 2), tuple[int, int] | None, True),
        ((1, 2, 3), tuple[int, int] | None, False),
        ([1, 2], tuple[int, int], False),
        ((), tuple[float, ...], False),
        ((), tuple[str, ...], True),
        ("a", typing.Literal["a", "b"], True),
        (["a"], typing.Literal["a", "b"], False),
    ],
)
def test_kinds(value, kind, fits):
    assert is_of_kind(value, kind) == fits
