"""What a run's step costs, predicted with fake tensors: bytes, operations, parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from infopro import models
from infopro.errors import InfoProError
from infopro.local import LocalModel
from infopro.memory import Planner, StepMemory
from infopro.recipes import RunConfig, build_objective
from infopro.tasks import Classification
from infopro.types import StageSummary

__all__ = ["Prediction", "predict", "predict_checkpointed", "predict_whole"]

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One training step of a run's network."""

    step: StepMemory
    stages: tuple[StageSummary, ...]


def predict(
    config: RunConfig, cuts: Sequence[str], *, image_shape: tuple[int, ...], num_classes: int
) -> Prediction:
    """The step that a run does, with its cuts; exact bytes, as on a CPU.

    Raises:
        InfoProError: a network that this version cannot make or record.
    """
    planner = _planner(config, image_shape, num_classes)
    local = planner.build(cuts, config.checkpoint)
    step = planner.track(local, config.batch_size)
    return Prediction(step=step, stages=_stages(local, step, config.batch_size, num_classes))


def predict_whole(config: RunConfig, *, image_shape: tuple[int, ...], num_classes: int) -> StepMemory:
    """The same network and batch end to end."""
    planner = _planner(config, image_shape, num_classes)
    return planner.local(1, config.batch_size)[1]


def predict_checkpointed(
    config: RunConfig, *, image_shape: tuple[int, ...], num_classes: int
) -> StepMemory | None:
    """End to end with every block checkpointed; None for a network that cannot be."""
    try:
        return _planner(config, image_shape, num_classes).checkpointed(config.batch_size)
    except InfoProError:
        return None


def _planner(config: RunConfig, image_shape: tuple[int, ...], num_classes: int) -> Planner:
    channels, height, _ = image_shape
    with torch.random.fork_rng(devices=[]):
        model = models.create(config.model, num_classes=num_classes, in_channels=channels, image_size=height)
    return Planner(
        model,
        (torch.empty(2, *image_shape, device="meta"),),
        objective=build_objective(config),
        task=Classification(num_classes=num_classes),
        optimizer=config.optimizer,
        precision=_PRECISIONS[config.precision],
        on_cuda=False,
    )


def _stages(
    local: LocalModel, step: StepMemory, batch_size: int, num_classes: int
) -> tuple[StageSummary, ...]:
    shapes = [*local.split.boundary_shapes, (num_classes,)]
    return tuple(
        StageSummary(
            index=index,
            blocks=blocks,
            parameters=_count(stage.part),
            head_parameters=_count(stage.objective),
            saved_bytes=step.saved[index],
            feature_shape=shapes[index],
            flops=_per_image(step.part_flops, index, batch_size),
            head_flops=_per_image(step.head_flops, index, batch_size) if step.part_flops else None,
        )
        for index, (stage, blocks) in enumerate(zip(local.stages, local.split.blocks, strict=True))
    )


def _per_image(flops: Sequence[int], index: int, batch_size: int) -> int | None:
    return flops[index] // batch_size if index < len(flops) else None


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
