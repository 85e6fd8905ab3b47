"""From a network and an objective to a local model: split, build the heads, put them together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from infopro.errors import BadInput, BadSplit, NotYetSupported
from infopro.local import LocalModel, LocalStage
from infopro.objectives import Objective
from infopro.split import split_model
from infopro.split.program import resized
from infopro.split.record import undisturbed
from infopro.split.split_model import as_inputs
from infopro.tasks import Task
from infopro.types import StageContext

__all__ = ["localize"]


def localize(
    model: nn.Module,
    example_input: Any,
    *,
    objective: Objective,
    task: Task,
    num_modules: int | None = None,
    cuts: Sequence[str] | None = None,
    memory: str | None = None,
    balance: str = "depth",
) -> LocalModel:
    """Make any network trainable by a local objective, without changing or copying it.

    Args:
        example_input: a tensor [N, ...] or a tuple of the network's inputs, as training will pass them.
        objective: what each module but the last is trained on; the last one has the task's own loss.
        num_modules: K; or name the K-1 blocks that end a module in `cuts`.
        balance: "depth" deals the blocks out equally.

    Raises:
        BadSplit, BadInput, NotSplittable: see `infopro.split.split_model`.
        BadInput: a network whose output does not fit the task.
        NotYetSupported: `memory`, or another `balance` than "depth".

    Example:
        >>> import torch, infopro
        >>> local = infopro.localize(
        ...     infopro.models.cifar_resnet(20, 10), torch.zeros(2, 3, 32, 32), num_modules=4,
        ...     objective=infopro.objectives.InfoPro(reconstruction_weight=5.0, task_weight=1.0),
        ...     task=infopro.tasks.Classification(num_classes=10))
        >>> out = local.backward(torch.rand(2, 3, 32, 32), torch.tensor([3, 7]))
        >>> sorted(out.losses[0])
        ['reconstruction', 'task', 'total']
    """
    if memory is not None or balance != "depth":
        asked = f"memory={memory!r}, balance={balance!r}"
        raise NotYetSupported("cuts are chosen by depth only", got=asked, remedy="pass num_modules or cuts")
    if objective.num_modules is not None:
        num_modules = _fixed(objective, num_modules, cuts)
        cuts = None
    split = split_model(model, example_input, num_modules=num_modules, cuts=cuts)
    inputs = as_inputs(example_input)
    if not isinstance(inputs[0], Tensor):
        raise BadInput("the first input must be a tensor", got=type(inputs[0]).__name__)
    with undisturbed(model), torch.no_grad():
        task.check_output(model(*resized(inputs, 2)))
    shapes = [*split.description.boundary_shapes, ()]
    contexts = [
        StageContext(k, len(shapes), shape, tuple(inputs[0].shape[1:])) for k, shape in enumerate(shapes)
    ]
    pairs = zip(split.parts, contexts, strict=True)
    stages = [LocalStage(part, objective.build(context, task), context) for part, context in pairs]
    dtype = inputs[0].dtype if inputs[0].is_floating_point() else None
    for stage in stages:
        stage.heads.to(device=inputs[0].device, dtype=dtype)
    return LocalModel(split, stages, task.to(inputs[0].device))


def _fixed(objective: Objective, num_modules: int | None, cuts: Sequence[str] | None) -> int:
    allowed = objective.num_modules
    asked = len(cuts) + 1 if cuts is not None else num_modules
    if asked is not None and asked != allowed:
        raise BadSplit(
            f"{type(objective).__name__} trains the network as {allowed} module",
            got=f"{asked} modules",
            remedy="leave num_modules and cuts out, or choose a local objective",
        )
    assert allowed is not None
    return allowed
