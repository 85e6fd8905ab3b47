"""Predicted bytes and operations: those of a real step, and of ResNet-20 as counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import infopro
from infopro.memory import summarize_stages
from infopro.recipes import RunConfig
from infopro.run_report.costs import costs_of
from infopro.run_report.grouping import group_runs
from infopro.run_report.prediction import predict
from infopro.run_report.reading import read_runs

NewRun = Callable[..., Path]
CUTS = ("layer1.1", "layer2.0", "layer3.0")
TASK = infopro.tasks.Classification(num_classes=10)


def test_operations_of_resnet_20() -> None:
    """40.55 million multiplications with their additions, and 0.26 of the 1x1 shortcuts that ours has."""
    config = RunConfig(model="cifar_resnet20", objective="greedy", batch_size=2)
    found = predict(config, CUTS, image_shape=(3, 32, 32), task=TASK)
    forward = sum(stage.flops or 0 for stage in found.stages)
    assert forward == pytest.approx(2 * (40.55e6 + 0.26e6), rel=1e-3)
    heads = [stage.head_flops for stage in found.stages]
    assert heads == [2 * 16 * 10, 2 * 32 * 10, 2 * 64 * 10, 0]  # a linear layer each, none at the end


def test_bytes_are_those_of_a_real_step() -> None:
    config = RunConfig(model="demo_resnet", objective="greedy", num_modules=2, batch_size=8)
    found = predict(config, ("layer2.0",), image_shape=(3, 16, 16), task=TASK)
    local = infopro.localize(
        infopro.models.create("demo_resnet", num_classes=10, in_channels=3, image_size=16),
        torch.rand(2, 3, 16, 16),
        cuts=["layer2.0"],
        objective=infopro.objectives.Greedy(),
        task=TASK,
    )
    real = summarize_stages(local, torch.rand(8, 3, 16, 16), torch.arange(8))
    assert [replace(stage, flops=None, head_flops=None) for stage in found.stages] == list(real)


def test_averaged_weights_are_one_more_copy_of_the_network() -> None:
    config = RunConfig(model="demo_resnet", objective="greedy", num_modules=2, batch_size=8)
    plain, averaged = (
        predict(replace(config, average_weights=decay), ("layer2.0",), image_shape=(3, 16, 16), task=TASK)
        for decay in (None, 0.99)
    )
    network = infopro.models.create("demo_resnet", num_classes=10, in_channels=3, image_size=16)
    copy = sum(tensor.nbytes for tensor in network.state_dict().values())
    assert averaged.step.peak == plain.step.peak + copy
    kinds = {kind: size - plain.step.at_peak[kind] for kind, size in averaged.step.at_peak.items()}
    assert {kind: size for kind, size in kinds.items() if size} == {"optimizer": copy}


def test_bars_splits_and_what_cannot_be_predicted(tmp_path: Path, new_run: NewRun) -> None:
    small = {"model": "demo_resnet", "batch_size": 8, "analysed": False}
    new_run(tmp_path / "a", objective="greedy", num_modules=2, **small)
    new_run(tmp_path / "b", objective="infopro-softmax", num_modules=2, **small)
    old = new_run(tmp_path / "c", objective="dgl", num_modules=2, **small)
    (old / "run.json").write_text('{"name": "c", "cuts": ["layer2.0"]}')
    costs = costs_of(group_runs(read_runs([tmp_path])[0]))
    assert [bar.name for bar in costs.memory] == [
        "end to end",
        "end to end, checkpointed",
        "greedy, K = 2",
        "infopro-softmax, K = 2",
    ]
    peaks = [sum(bar.kinds.values()) for bar in costs.memory]
    assert peaks[0] > peaks[1] and peaks[0] > peaks[2]
    (split,) = costs.splits  # of the method with the larger heads
    assert split.of == "infopro-softmax, K = 2" and len(split.stages) == 2
    assert set(costs.saved_bytes) == {"greedy, K = 2", "infopro-softmax, K = 2"}
    (note,) = costs.notes
    assert "dgl, K = 2 are not predicted: run.json does not say the images' shape" in note
