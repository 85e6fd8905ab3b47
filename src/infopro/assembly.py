"""From a split and an objective to a local model: build the heads, put them together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from infopro.errors import BadInput
from infopro.local import LocalModel, LocalStage
from infopro.objectives import Objective
from infopro.splitting import LiveSplit, SplitModel
from infopro.splitting.program import resized
from infopro.splitting.record import undisturbed
from infopro.tasks import Task
from infopro.types import StageContext

__all__ = ["assemble"]


def assemble(
    split: SplitModel | LiveSplit,
    inputs: tuple[Any, ...],
    *,
    objective: Objective,
    task: Task,
    recompute_objectives: bool = False,
    checked: bool = False,
) -> LocalModel:
    """Give every part of a split network its heads and its loss.

    Args:
        inputs: an example of the network's inputs; the first one is the image.
        recompute_objectives: heads and losses run again in the backward pass.
        checked: the first batch need not be looked at, as where it has no values.

    Raises:
        BadInput: a network whose output does not fit the task, a first input that is no tensor.
    """
    image = inputs[0]
    if not isinstance(image, Tensor):
        raise BadInput("the first input must be a tensor", got=type(image).__name__)
    with undisturbed(split.model), torch.no_grad():
        task.check_output(split.model(*resized(inputs, 2)))
    shapes = [*split.description.boundary_shapes, ()]
    contexts = [StageContext(k, len(shapes), shape, tuple(image.shape[1:])) for k, shape in enumerate(shapes)]
    pairs = zip(split.parts, contexts, strict=True)
    stages = [LocalStage(p, objective.build(c, task), c, again=recompute_objectives) for p, c in pairs]
    for stage in stages:
        _place(stage.heads, image)
    return LocalModel(split, stages, task.to(image.device), checked=checked)


def _place(heads: nn.Module, image: Tensor) -> None:
    """Put heads where the image is, and in its dtype; what is there already is not touched."""
    dtype = image.dtype if image.is_floating_point() else torch.get_default_dtype()
    tensors = [*heads.parameters(), *heads.buffers()]
    if any(t.device != image.device or (t.is_floating_point() and t.dtype != dtype) for t in tensors):
        heads.to(device=image.device, dtype=dtype)
