"""What a run's step costs, predicted with fake tensors: bytes, operations, parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from infopro import models
from infopro.errors import InfoProError
from infopro.memory import PRECISIONS, Planner, StepMemory, predicted_stages
from infopro.recipes import RunConfig, build_objective
from infopro.tasks import Task
from infopro.types import StageSummary

__all__ = ["Prediction", "predict", "predict_checkpointed", "predict_whole"]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One training step of a run's network."""

    step: StepMemory
    stages: tuple[StageSummary, ...]


def predict(
    config: RunConfig, cuts: Sequence[str], *, image_shape: tuple[int, ...], task: Task
) -> Prediction:
    """The step that a run does, with its cuts; exact bytes, as on a CPU.

    Averaged weights count with the optimizer's state: both are kept from step to step, beside the weights.

    Raises:
        InfoProError: a network that this version cannot make or record.
    """
    planner = _planner(config, image_shape, task)
    local = planner.build(cuts, config.checkpoint)
    step = planner.track(local, config.batch_size)
    if config.average_weights is not None:
        step = _with_averages(step, local.model)
    return Prediction(step=step, stages=predicted_stages(local, step, batch_size=config.batch_size))


def predict_whole(config: RunConfig, *, image_shape: tuple[int, ...], task: Task) -> StepMemory:
    """The same network and batch end to end."""
    planner = _planner(config, image_shape, task)
    return planner.local(1, config.batch_size)[1]


def predict_checkpointed(config: RunConfig, *, image_shape: tuple[int, ...], task: Task) -> StepMemory | None:
    """End to end with every block checkpointed; None for a network that cannot be."""
    try:
        return _planner(config, image_shape, task).checkpointed(config.batch_size)
    except InfoProError:
        return None


def _with_averages(step: StepMemory, model: nn.Module) -> StepMemory:
    kept = {id(tensor): tensor.nbytes for tensor in model.state_dict(keep_vars=True).values()}
    more = sum(kept.values())
    at_peak = {**step.at_peak, "optimizer": step.at_peak["optimizer"] + more}
    return replace(step, peak=step.peak + more, at_peak=at_peak)


def _planner(config: RunConfig, image_shape: tuple[int, ...], task: Task) -> Planner:
    channels, *size = image_shape
    with torch.random.fork_rng(devices=[]):
        model = models.create(
            config.model,
            num_classes=task.out_features,
            in_channels=channels,
            image_size=(size[0], size[1]),
        )
    return Planner(
        model,
        (torch.empty(2, *image_shape, device="meta"),),
        objective=build_objective(config),
        task=task,
        optimizer=config.optimizer,
        precision=PRECISIONS[config.precision],
        on_cuda=False,
    )
