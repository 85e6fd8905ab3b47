"""Each example runs as a user would run it, with small numbers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"

# what to run it with, and what its last line must look like
RUNS = {
    "check_your_model.py": (
        ["demo_resnet", "--num-modules", "3"],
        r"gradients are those of back-propagation: False",
    ),
    "custom_objective.py": (["--steps", "2"], r"step 2: \d\.\d{4} \d\.\d{4} \d\.\d{4}"),
    "step_each_stage.py": (["--steps", "2"], r"gradients at once: [\d,]+ bytes of [\d,]+"),
    "train_your_own_model.py": (
        ["--epochs", "1", "--images", "128"],
        r"epoch 1: module losses( \d\.\d{3}){3}, test error \d+\.\d %",
    ),
}


def run(example, *arguments, folder):
    command = [sys.executable, "-W", "error", str(FOLDER / example), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)


def test_every_example_is_run():
    assert {file.name for file in FOLDER.glob("*.py")} == set(RUNS)


@pytest.mark.parametrize("example", RUNS)
def test_example_runs(example, tmp_path):
    arguments, last_line = RUNS[example]
    done = run(example, *arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.match(last_line, done.stdout.splitlines()[-1]), done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("example", RUNS)
def test_examples_are_short_and_flat(example):
    lines = (FOLDER / example).read_text().splitlines()
    assert len(lines) <= 60
    assert f"    python examples/{example}" in "\n".join(lines[:5]), "the docstring says how to run it"


def test_one_stage_has_gradients_at_a_time(tmp_path):
    done = run("step_each_stage.py", "--steps", "1", folder=tmp_path)
    largest, whole = (int(n.replace(",", "")) for n in re.findall(r"[\d,]{4,}", done.stdout.splitlines()[-1]))
    assert 0 < largest < whole
    done = run("step_each_stage.py", "--steps", "1", "--num-modules", "1", folder=tmp_path)
    largest, whole = (int(n.replace(",", "")) for n in re.findall(r"[\d,]{4,}", done.stdout.splitlines()[-1]))
    assert largest == whole


def test_check_your_model_takes_one_module_and_refuses_an_unknown_network(tmp_path):
    assert run("check_your_model.py", "demo_resnet", "--num-modules", "1", folder=tmp_path).returncode == 0
    unknown = run("check_your_model.py", "resnet_of_nobody", folder=tmp_path)
    assert unknown.returncode == 1 and "unknown model" in unknown.stderr
