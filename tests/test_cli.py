import json
import re

import numpy as np
import pytest
import torch

from infopro.cli import main

TINY = ["--limit-train", "128", "--limit-test", "64", "--batch-size", "64", "--device", "cpu"]
RECIPE = "digits-demo-k4-infopro-softmax"


def train(*options, output):
    return main(["train", RECIPE, *TINY, "--output", str(output), *options])


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train("--epochs", "2", output=folder) == 0
    return folder


def test_a_run_folder_holds_what_others_need_to_repeat_it(run):
    configuration = json.loads((run / "config.json").read_text())
    record = json.loads((run / "run.json").read_text())
    assert configuration["objective"] == "infopro-softmax" and configuration["seed"] == 0
    assert record["environment"]["versions"]["torch"] == torch.__version__
    assert record["cuts"] == ["layer1.0", "layer1.1", "layer2.0"]
    log = lines_of(run / "log.jsonl")
    assert [line["epoch"] for line in log] == [1, 2]
    assert all(set(losses) == {"reconstruction", "task", "total"} for losses in log[0]["losses"][:3])
    assert log[1]["best_test_error"] == min(line["test_error"] for line in log)
    assert len(list((run / "checkpoints").glob("epoch-*"))) == 2
    assert list((run / "tensorboard").glob("events*"))


def test_evaluate_gives_the_logged_error(run, capsys):
    assert main(["evaluate", str(run), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert f"test error {lines_of(run / 'log.jsonl')[-1]['test_error']:.2f} %" in printed
    assert "epoch 2" in printed and "64 images" in printed


def test_resume_equals_the_undisturbed_run(run, tmp_path, monkeypatch):
    """Stopped by Ctrl-C in the second epoch, then resumed: the same weights and the same log."""
    from infopro.training import loop

    real, calls = loop.LocalModel.backward, []

    def interrupted(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    monkeypatch.setattr(loop.LocalModel, "backward", interrupted)
    assert train("--epochs", "2", output=tmp_path / "run") == 130
    monkeypatch.undo()
    assert len(lines_of(tmp_path / "run" / "log.jsonl")) == 1
    assert train("--epochs", "2", "--resume", output=tmp_path / "run") == 0
    for name in ("model", "heads", "optimizer"):
        file = f"checkpoints/epoch-0002/{name}.safetensors"
        assert (run / file).read_bytes() == (tmp_path / "run" / file).read_bytes(), name
    timing = {"seconds", "images_per_second"}
    for left, right in zip(
        lines_of(run / "log.jsonl"), lines_of(tmp_path / "run" / "log.jsonl"), strict=True
    ):
        assert {k: v for k, v in left.items() if k not in timing} == {
            k: v for k, v in right.items() if k not in timing
        }


def test_a_finished_run_resumes_to_itself(run, capsys):
    before = (run / "log.jsonl").read_bytes()
    assert train("--epochs", "2", "--resume", output=run) == 0
    assert (run / "log.jsonl").read_bytes() == before


def test_the_printed_configuration_trains_the_same_run(capsys, tmp_path):
    assert main(["train", RECIPE, "--epochs", "1", *TINY, "--print_config"]) == 0
    written = tmp_path / "config.yaml"
    written.write_text(capsys.readouterr().out)
    assert main(["train", "--config", str(written), "--output", str(tmp_path / "run")]) == 0
    configuration = json.loads((tmp_path / "run" / "config.json").read_text())
    assert configuration["cuts"] == ["layer1.0", "layer1.1", "layer2.0"] and configuration["epochs"] == 1


@pytest.mark.parametrize("objective", ["end-to-end", "greedy", "dgl", "infopro-contrast"])
def test_every_objective_overrides_a_recipes(objective, tmp_path):
    assert train("--epochs", "1", "--objective", objective, output=tmp_path / "run") == 0


def test_another_k_does_not_keep_the_recipes_cuts(tmp_path):
    options = ["--epochs", "1", "--num-modules", "2"]
    assert train(*options, output=tmp_path / "run") == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["cuts"] == ["layer2.0"]


def test_own_data_and_library_network(tmp_path):
    """An .npz and a timm network by name, cuts given by name, in bfloat16."""
    generator = np.random.default_rng(0)
    arrays = {
        f"{kind}_{part}": generator.integers(
            0, 256 if kind == "x" else 3, (64, 32, 32, 3) if kind == "x" else 64
        )
        for part in ("train", "test")
        for kind in ("x", "y")
    }
    np.savez(
        tmp_path / "my.npz", **{k: v.astype("uint8" if k[0] == "x" else "int64") for k, v in arrays.items()}
    )
    options = [
        "--data",
        str(tmp_path / "my.npz"),
        "--model",
        "timm/resnet10t",
        "--objective",
        "infopro-softmax",
    ]
    options += ["--cuts", "layer1.0,layer3.0", "--num-modules", "3", "--reconstruction-weight", "5,1"]
    options += ["--task-weight", "1", "--epochs", "1", "--batch-size", "32", "--precision", "bfloat16"]
    assert main(["train", *options, "--schedule", "constant", "--output", str(tmp_path / "run")]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["cuts"] == ["layer1.0", "layer3.0"]


BAD = {
    "unknown recipe": (["train", "cifar10-resnet32-k4-infopro"], "did you mean cifar10-resnet32-k4-infopro-"),
    "unknown model": (["train", RECIPE, "--model", "resnet50"], "timm/resnet50 or torchvision/resnet50"),
    "unknown data": (["train", RECIPE, "--data", "cifar11"], "did you mean cifar10"),
    "unknown objective": (["train", RECIPE, "--objective", "gredy"], "did you mean greedy"),
    "unknown option": (["train", RECIPE, "--epoch", "3"], "--epoch"),
    "not a number": (["train", RECIPE, "--epochs", "three"], "epochs"),
    "out of range": (["train", RECIPE, "--epochs", "0", "--batch-size", "0"], "2 problems"),
    "no such block": (["train", RECIPE, "--cuts", "layer1.0,layer7,layer2.0"], "'layer7' is not a block"),
    "out of order": (["train", RECIPE, "--cuts", "layer2.0,layer1.0,layer2.1"], "out of order"),
    "cuts and K disagree": (["train", RECIPE, "--cuts", "layer1.0", "--num-modules", "3"], "2 modules"),
    "too many modules": (["train", RECIPE, "--num-modules", "9"], "allowed: 1 to 7"),
    "wrong image size": (["train", RECIPE, "--model", "torchvision/inception_v3"], "75"),
    "missing set": (["train", "cifar10-resnet32-end-to-end", "--data-dir", "nowhere"], "--download"),
    "no such folder": (["train", RECIPE, "--data", "./nowhere"], "no such file or folder"),
    "no run": (["evaluate", "nowhere"], "does not exist"),
    "no GPU by that name": (["train", RECIPE, "--device", "tpu"], "device is not usable"),
    "unknown list": (["list", "recipe"], "did you mean recipes"),
    "nothing matches": (["list", "models", "resnet999*"], "unknown model"),
    "no command by that name": (["trian"], "trian"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line_and_writes_nothing(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD[case]
    assert main([*arguments, *(["--output", "run"] if arguments[0] == "train" else [])]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and captured.err.startswith("infopro: ")
    assert message in captured.err
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(run, capsys):
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    assert train("--epochs", "2", output=run) == 2
    assert "the run folder exists" in capsys.readouterr().err
    assert train("--epochs", "3", "--seed", "1", "--resume", output=run) == 2
    error = capsys.readouterr().err
    assert "another configuration" in error and "epochs 3 (run: 2)" in error and "seed 1 (run: 0)" in error
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_a_damaged_checkpoint_is_named(run, tmp_path, capsys):
    import shutil

    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run/checkpoints/epoch-0002/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    assert main(["evaluate", str(tmp_path / "run")]) == 2
    assert re.search(r"model.safetensors is damaged", capsys.readouterr().err)


@pytest.mark.parametrize("kind", ["recipes", "models", "data", "objectives", "heads", "decoders", "tasks"])
def test_list(kind, capsys):
    assert main(["list", kind]) == 0
    names = capsys.readouterr().out.splitlines()
    assert len(names) == len(set(names)) >= 1


def test_published_numbers_stand_beside_recipes(capsys):
    assert main(["list", "recipes", "cifar10-resnet32-k4-infopro-contrast"]) == 0
    assert "published: 8.58 ± 0.17 %, Table 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--help"], ["demo", "--help"], ["train", "--help"], ["evaluate", "--help"]]
)
def test_help_explains_every_option(arguments, capsys):
    assert main(arguments) == 0
    assert "usage: infopro" in capsys.readouterr().out


def test_without_a_command_help_is_shown(capsys):
    assert main([]) == 2
    assert "demo" in capsys.readouterr().out


def test_a_value_that_looks_like_a_recipe_is_no_recipe(tmp_path, monkeypatch):
    """--output comes first and has a recipe's name; the recipe is what stands alone."""
    monkeypatch.chdir(tmp_path)
    options = ["--output", "digits-demo-k4-dgl", "digits-demo-k4-greedy", "--epochs", "1", *TINY]
    assert main(["train", *options]) == 0
    configuration = json.loads((tmp_path / "digits-demo-k4-dgl" / "config.json").read_text())
    assert configuration["objective"] == "greedy"


def test_a_recipe_named_in_a_file_is_used(tmp_path):
    written = tmp_path / "my.yaml"
    written.write_text("recipe: digits-demo-k4-greedy\nepochs: 1\n")
    assert main(["train", "--config", str(written), *TINY, "--output", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"] == "demo_resnet"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["name"] == "digits-demo-k4-greedy"


def test_a_log_that_lacks_epochs_is_not_continued(run, tmp_path, capsys):
    import shutil

    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "log.jsonl").unlink()
    assert train("--epochs", "2", "--resume", output=tmp_path / "run") == 2
    assert "log.jsonl lacks epochs" in capsys.readouterr().err


UNUSABLE = {
    "random bytes as configuration": ["train", "--config", "bytes.yaml"],
    "a file in the folder's way": ["demo", "--output", "bytes.yaml/out"],
    "a very long name": ["train", RECIPE, "--output", "x" * 300],
    "too few images to show": ["demo", "--output", "out", "--train-size", "64", "--test-size", "1"],
    "one image a step": ["train", "digits-demo-k4-dgl", "--batch-size", "1"],
    "fewer than no workers": ["train", RECIPE, "--num-workers", "-1"],
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_files_and_numbers_end_in_one_line(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(bytes(range(128, 256)))
    assert main(UNUSABLE[case]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("infopro: ")
    assert [file.name for file in tmp_path.iterdir()] == ["bytes.yaml"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--crop", "5"], "--crop cannot be read: got 5; it is: rows and columns of training crops"),
        (["--crop", "5,5,5"], "--crop cannot be read: got [5, 5, 5]; it is: rows and columns"),
        (["--scale", "1,inf"], "--scale cannot be read: got [1, 'inf']; it is: least, most resizing"),
        (["--image-size", "large"], "--image-size cannot be read: got large; it is: side, or rows"),
    ],
)
def test_what_fits_no_type_of_an_option_is_answered_by_what_the_option_is(arguments, said, capsys):
    assert main(["train", RECIPE, *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and "see infopro train --help" in error


@pytest.mark.parametrize("command", ["list recipes | head -1", "list objectives | true"])
def test_a_closed_pipe_is_no_error(command):
    """Also where all fits into Python's buffer, which is written at the end."""
    import os
    import subprocess
    import sys

    command = f"{sys.executable} -m infopro {command}; exit ${{PIPESTATUS[0]}}"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=buffered)
    assert done.returncode == 0 and not done.stderr
