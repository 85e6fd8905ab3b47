"""`infopro train --deterministic` and `--until`: what they change, and what they do not."""

import json

import pytest
import torch

from infopro import recipes
from infopro.cli import main
from infopro.errors import BadConfiguration
from infopro.options import configuration, parse
from infopro.recipes import RunConfig, problems
from infopro.reproduction import compare_runs


@pytest.fixture
def train(trained_run, tmp_path):
    """As `trained_run` was."""

    def trained(*options, name="run"):
        config = json.loads((trained_run / "config.json").read_text())
        given = recipes.as_options(recipes.from_plain(config), RunConfig())
        return main(["train", *given, "--device=cpu", f"--output={tmp_path / name}", *options])

    return trained


def test_the_same_bits_by_kernels_that_promise_them(train, trained_run, tmp_path, monkeypatch):
    seen, real = [], torch.optim.SGD.step

    def step(self, *arguments):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return real(self, *arguments)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    assert train("--deterministic") == 0
    assert set(seen) == {True} and not torch.are_deterministic_algorithms_enabled()
    assert compare_runs(trained_run, tmp_path / "run").identical  # on a CPU they are the usual ones
    assert json.loads((tmp_path / "run" / "config.json").read_text())["deterministic"] is True
    seen.clear()
    session = recipes.prepare(*_small(tmp_path), device=torch.device("cpu"))
    recipes.fit(session)
    assert set(seen) == {True} and not torch.are_deterministic_algorithms_enabled()


def _small(tmp_path):
    config = recipes.from_plain(json.loads((tmp_path / "run" / "config.json").read_text()))
    how = {"data_dir": None, "download": False, "device": torch.device("cpu")}
    return config, recipes.prepare_data(config, **how)


def test_an_operation_that_has_no_such_kernel_ends_the_run_in_one_line(train, capsys, monkeypatch):
    def unordered(self, *arguments):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))

    monkeypatch.setattr(torch.optim.SGD, "step", unordered)
    assert train("--deterministic") == 2
    said = capsys.readouterr().err
    assert (
        "an operation has no deterministic kernel on this device: got put_; leave --deterministic out" in said
    )
    assert said.count("\n") == 1


def test_until_ends_between_two_epochs_and_resume_goes_on(train, trained_run, tmp_path, capsys):
    assert train("--until", "1") == 0
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert len(log) == 1 and json.loads(log[0])["epoch"] == 1
    assert train("--resume") == 0
    assert compare_runs(trained_run, tmp_path / "run").identical
    assert compare_runs(trained_run, tmp_path / "run").lines == 2
    assert train("--until", "0", name="none") == 2
    assert "--until cannot be read: got 0; see infopro train --help" in capsys.readouterr().err
    assert train("--until", "1", "--parallel", "cached", name="cached") == 2
    assert "--until is set, and nothing reads it: got --parallel cached" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--deterministic", "--epochs", "3"], True),
        (["--epochs=3", "--deterministic"], True),
        (["--deterministic", "digits-demo-k4-greedy"], True),  # no value, but the recipe
        (["--deterministic", "true"], True),
        (["--deterministic=false"], False),
        (["--deterministic", "false"], False),
        ([], False),
    ],
)
def test_the_option_may_stand_alone(arguments, expected):
    options, _ = parse(["train", *arguments])
    assert configuration(options.train).deterministic is expected
    assert options.train.recipe == ("digits-demo-k4-greedy" if "digits-demo-k4-greedy" in arguments else None)


def test_decoupled_runs_cannot_be(tmp_path):
    (problem,) = problems(RunConfig(deterministic=True, parallel="decoupled"))
    assert "deterministic is set but parallel is 'decoupled'" in problem
    with pytest.raises(BadConfiguration):
        recipes.check(RunConfig(deterministic=True, parallel="decoupled"))
