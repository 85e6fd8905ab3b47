"""`infopro train --initial-weights RUN`: a run's network in other modules, without anything else of it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from infopro import recipes
from infopro.cli import main
from infopro.training import RunFolder

CPU = torch.device("cpu")
DATA = ("--limit-train=96", "--limit-test=64", "--batch-size=32", "--device=cpu")
K2 = ("digits-demo-k4-greedy", "--num-modules=2", "--cuts=null")


def train(output: Path, *what: str) -> int:
    return main(["train", *what, *DATA, "--epochs", "2", "--output", str(output)])


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """K = 4, with averaged weights."""
    path = tmp_path_factory.mktemp("initial") / "first"
    assert train(path, "digits-demo-k4-greedy", "--average-weights=0.8") == 0
    return path


def tensors(run: Path, kind: str) -> dict[str, torch.Tensor]:
    return load_file(RunFolder.open(run).last_checkpoint() / f"{kind}.safetensors")


def session(initial: Path | None, **options: object) -> recipes.Session:
    base = replace(recipes.load("digits-demo-k4-greedy").config, cuts=None, limit_train=96)
    config = replace(base, initial_weights=None if initial is None else str(initial), **options)
    data = recipes.prepare_data(config, data_dir=None, download=False, device=CPU)
    return recipes.prepare(config, data, device=CPU)


@pytest.mark.parametrize("num_modules", [1, 2, 4])
def test_any_number_of_modules_begins_with_the_averaged_weights(first: Path, num_modules: int) -> None:
    options = {"objective": "greedy" if num_modules > 1 else "end-to-end", "num_modules": num_modules}
    begun, drawn = (session(initial, **options) for initial in (first, None))
    wanted, found = tensors(first, "averages"), begun.local.model.state_dict()
    assert wanted.keys() == found.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert not torch.equal(found["fc.weight"], drawn.local.model.state_dict()["fc.weight"])
    heads, others = begun.local.heads.state_dict(), drawn.local.heads.state_dict()
    assert heads.keys() == others.keys() and all(torch.equal(heads[name], others[name]) for name in heads)
    assert not begun.optimizer.state


def test_a_run_goes_on_and_is_repeated_without_its_first_weights_name(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shutil.copytree(first, tmp_path / "source")
    given = [*K2, f"--initial-weights={source}"]
    assert train(tmp_path / "whole", *given) == 0
    record = json.loads((tmp_path / "whole" / "run.json").read_text())["initial_weights"]
    assert record["checkpoint"] == str(source / "checkpoints" / "epoch-0002")
    # the same weights, by the name of the checkpoint
    assert main(["reproduce", str(tmp_path / "whole"), "-o", str(tmp_path / "again")]) == 0
    assert "identical, bit for bit" in capsys.readouterr().out

    assert train(tmp_path / "parts", *given, "--until=1") == 0
    shutil.rmtree(source)
    assert train(tmp_path / "parts", *given, "--resume") == 0
    found, wanted = tensors(tmp_path / "parts", "model"), tensors(tmp_path / "whole", "model")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    plain = tmp_path / "plain"
    assert train(plain, *K2) == 0
    assert not torch.equal(tensors(plain, "model")["fc.weight"], wanted["fc.weight"])


def test_other_first_weights_are_said(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = first / "checkpoints" / "epoch-0001"
    assert train(tmp_path / "run", *K2, f"--initial-weights={checkpoint}") == 0
    file = tmp_path / "run" / "run.json"
    record = json.loads(file.read_text())
    assert record["initial_weights"]["checkpoint"] == str(checkpoint)
    record["initial_weights"]["checkpoint"] = str(first / "checkpoints" / "epoch-0002")
    file.write_text(json.dumps(record))
    assert main(["reproduce", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().out
    assert f"different: initial weights: {record['initial_weights']['hash']} there" in said
    assert "not the same" in said


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--initial-weights=nowhere"], "the run folder does not exist: got"),
        (["--initial-weights=FIRST", "--pretrained=true"], "pretrained and initial_weights are both set"),
        (["--initial-weights=FIRST", "--model=cifar_resnet20"], "belongs to another network"),
    ],
)
def test_what_cannot_begin_so_is_one_line(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    more = [option.replace("FIRST", str(first)) for option in more]
    assert train(tmp_path / "run", *K2, *more) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()
