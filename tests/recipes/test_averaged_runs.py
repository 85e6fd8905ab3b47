"""`infopro train --average-weights`: what is tested, stored, resumed, and found by other commands."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from infopro import recipes
from infopro.cli import main
from infopro.trained_network import load_network
from infopro.training import RunFolder

CPU = torch.device("cpu")
OPTIONS = "digits-demo-k4-greedy --limit-train 96 --limit-test 64 --batch-size 32 --epochs 2 --device cpu"


def train(output: Path, *more: str) -> int:
    return main(["train", *OPTIONS.split(), "--average-weights", "0.8", "--output", str(output), *more])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("averaged") / "run"
    assert train(path) == 0
    return path


def files(run: Path) -> dict[str, bytes]:
    folder = RunFolder.open(run).last_checkpoint()
    return {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}


def test_evaluate_finds_what_the_log_says_and_the_raw_weights_if_asked(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = RunFolder.open(run).log()[-1]
    said = {}
    for options in ([], ["--raw-weights"]):
        assert main(["evaluate", str(run), "--device", "cpu", *options]) == 0
        said[len(options)] = capsys.readouterr().out
    assert (
        f"{record.test_error:.2f} % (loss {record.test_loss:.4f}) on 64 images, averaged weights" in said[0]
    )
    assert "on 64 images, weights not averaged" in said[1]
    state, raw = recipes.evaluate_run(run, data_dir=None, download=False, device=CPU, averaged=False)
    assert raw.loss != record.test_loss and f"(loss {raw.loss:.4f})" in said[1]
    assert state.epoch == 2


def test_predictions_and_analyses_are_of_the_averaged_network(run: Path) -> None:
    folder = RunFolder.open(run).last_checkpoint()
    averaged, raw = (load_file(folder / f"{kind}.safetensors") for kind in ("averages", "model"))
    assert averaged.keys() == raw.keys()
    assert not torch.equal(averaged["fc.weight"], raw["fc.weight"])
    loaded = recipes.load_run(run)
    for network in (load_network(run, device=CPU).model, loaded.local.model):
        found = network.state_dict()
        assert all(torch.equal(found[name], averaged[name]) for name in averaged)
    heads = loaded.local.heads.state_dict()
    stored = load_file(folder / "heads.safetensors")
    assert all(torch.equal(heads[name], stored[name]) for name in stored)


def test_it_is_resumed_bit_for_bit_and_with_the_same_decay_only(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    shutil.rmtree(RunFolder.open(copy).last_checkpoint())
    assert train(copy, "--average-weights", "0.7", "--resume") == 2
    assert "another configuration" in capsys.readouterr().err
    assert train(copy, "--resume") == 0
    assert "resuming after epoch 1" in capsys.readouterr().out
    assert files(copy) == files(run) and len(files(run)) == 4


def test_raw_weights_of_a_run_without_others_are_refused(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(trained_run), "--raw-weights", "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("infopro: --raw-weights is set, and nothing reads it: got ")
