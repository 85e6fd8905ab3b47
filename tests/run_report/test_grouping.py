"""Runs become methods: seeds together, everything else apart and said in the name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from infopro.errors import BadRun
from infopro.run_report.grouping import Method, common_fields, group_runs
from infopro.run_report.reading import read_runs

NewRun = Callable[..., Path]


@pytest.fixture
def methods(tmp_path: Path, new_run: NewRun) -> Callable[..., list[Method]]:
    """The methods of runs with these options."""

    def grouped(*runs: dict[str, object]) -> list[Method]:
        for number, options in enumerate(runs):
            new_run(tmp_path / f"run{number}", analysed=False, **options)
        return group_runs(read_runs([tmp_path])[0])

    return grouped


def test_a_study(study: Path) -> None:
    found = group_runs(read_runs([study])[0])
    assert [(m.name, m.family, len(m.runs)) for m in found] == [
        ("end to end", "end to end", 2),
        ("greedy, K = 2", "greedy", 2),
        ("greedy, K = 4", "greedy", 2),
        ("infopro-softmax, K = 2", "infopro-softmax", 2),
        ("infopro-softmax, K = 4", "infopro-softmax", 2),
    ]
    assert [run.config.seed for run in found[0].runs] == [0, 1]


def test_what_else_differs_is_in_the_name(methods: Callable[..., list[Method]]) -> None:
    greedy = {"objective": "greedy", "num_modules": 2}
    found = methods({**greedy, "learning_rate": 0.1}, {**greedy, "learning_rate": 0.2}, {**greedy, "seed": 1})
    assert [m.name for m in found] == [
        "greedy, learning_rate = 0.1, K = 2",
        "greedy, learning_rate = 0.2, K = 2",
        "greedy, learning_rate = 0.8, K = 2",
    ]


def test_what_differs_between_k_only_is_no_name_but_described(methods: Callable[..., list[Method]]) -> None:
    infopro = {"objective": "infopro-softmax"}
    found = methods(
        {**infopro, "num_modules": 2, "reconstruction_weight": 5.0},
        {**infopro, "num_modules": 4, "reconstruction_weight": (6.0, 1.0)},
    )
    assert [m.name for m in found] == ["infopro-softmax, K = 2", "infopro-softmax, K = 4"]
    assert [m.description for m in found] == ["reconstruction_weight 5.0", "reconstruction_weight 6.0, 1.0"]


def test_the_control_is_a_family_of_its_own(methods: Callable[..., list[Method]]) -> None:
    infopro = {"objective": "infopro-softmax", "num_modules": 2}
    found = methods({**infopro}, {**infopro, "reconstruction_weight": None})
    assert sorted(m.name for m in found) == ["infopro-softmax, K = 2", "infopro-softmax, λ1 = 0, K = 2"]
    assert len({m.family for m in found}) == 2


def test_options_that_an_objective_does_not_read_make_no_difference(
    methods: Callable[..., list[Method]],
) -> None:
    greedy = {"objective": "greedy", "num_modules": 2}
    (method,) = methods({**greedy, "temperature": 0.1}, {**greedy, "temperature": 0.2, "seed": 1})
    assert len(method.runs) == 2


def test_several_networks_are_told_apart(methods: Callable[..., list[Method]]) -> None:
    found = methods(
        {"objective": "greedy", "num_modules": 2},
        {"objective": "dgl", "num_modules": 2, "model": "demo_resnet"},
    )
    assert [m.name for m in found] == [
        "greedy, model = demo_resnet20, K = 2",
        "dgl, model = demo_resnet, K = 2",
    ]


def test_other_test_images_are_refused(methods: Callable[..., list[Method]]) -> None:
    greedy = {"objective": "greedy", "num_modules": 2}
    with pytest.raises(BadRun, match=r"different images.*cifar10, digits-on-photos.*report of each"):
        methods({**greedy}, {**greedy, "data": "cifar10"})


def test_common_fields(study: Path) -> None:
    shared = common_fields(group_runs(read_runs([study])[0]))
    assert shared["model"] == "demo_resnet20" and shared["epochs"] == "10"
    assert not {"seed", "objective", "num_modules", "cuts"} & set(shared)
    one = common_fields(group_runs(read_runs([study / "k2-greedy-seed0"])[0]))
    assert one["seed"] == "0" and one["cuts"] == "layer2.0"
