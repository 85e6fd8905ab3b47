"""What every test shares."""

import os
from pathlib import Path

# Some virtual machines advertise AMX and then fault on it: bfloat16 kernels stay on AVX-512.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16")

import numpy as np
import pytest
import torch

from infopro.cli import main

# Threads that wait for each other are slower than one on a busy machine, and sums depend on their number.
torch.set_num_threads(1)


# These files take longest, some with few tests: begun last, one of them would run alone at the end.
LONGEST = (
    "engines/test_faults.py",
    "test_examples.py",
    "memory/test_plan.py",
    "benchmarks/test_gpu_run.py",
    "test_documented_commands.py",
    "memory/test_budget.py",
    "test_compiling.py",
    "engines/test_asynchronous_runs.py",
    "test_train_command.py",
    "test_layout.py",
    "benchmarks/test_gpu_training.py",
    "memory/test_choose.py",
    "sweep/test_sweep_command.py",
    "engines/test_stopped_anywhere.py",
)


def pytest_collection_modifyitems(items):
    """The longest files first; within a file the order stays."""
    rank = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """A run of two epochs in three modules with decoders, on few images; it is not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    _write_colours(folder / "colours.npz")
    options = ["--data", str(folder / "colours.npz"), "--model", "demo_resnet", "--num-modules", "3"]
    options += ["--objective", "infopro-softmax", "--reconstruction-weight", "1", "--task-weight", "1"]
    options += ["--epochs", "2", "--batch-size", "32", "--learning-rate", "0.05", "--schedule", "constant"]
    assert main(["train", *options, "--device", "cpu", "--output", str(folder / "run")]) == 0
    return folder / "run"


def _write_colours(file):
    """48 training and 48 test images of three classes: which of the colours is the brightest."""
    generator = np.random.default_rng(0)
    content = {}
    for part in ("train", "test"):
        labels = np.arange(48) % 3
        images = generator.integers(0, 200, (48, 16, 16, 3))
        images[np.arange(48), :, :, labels] += 50
        content |= {f"x_{part}": images.astype(np.uint8), f"y_{part}": labels.astype(np.int64)}
    np.savez(file, **content)
