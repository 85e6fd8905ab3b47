"""What each module learns from beside what end-to-end training would have it learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from infopro.analysis._types import ModuleGradient
from infopro.check import unchanged
from infopro.local import LocalModel, differentiate
from infopro.random_streams import seed_stage, step_seed
from infopro.splitting import as_inputs
from infopro.training.evaluation import kept_modes

__all__ = ["angle_degrees", "module_gradients"]

Gradient = Sequence[Tensor | None]  # one entry per parameter; None where nothing reaches it


def module_gradients(
    local: LocalModel,
    batches: Iterable[tuple[Any, Tensor]],
    *,
    seed: int = 0,
    on_batch: Callable[[int], object] | None = None,
) -> tuple[ModuleGradient, ...]:
    """Per module, the gradient of its own loss against that of the task's loss through the whole network.

    Both are taken with respect to the network's parameters in that module (its heads have no part in end to
    end), at the same weights, on the same batch, in train mode, with the same dropout. The last module's loss
    is the task's: its angle is 0 for every method, and so are all of K = 1. A parameter that several modules
    share counts in each of them: with that module's own gradient on one side, and on the other with the whole
    one, which cannot be divided.

    Parameters, gradients, buffers, modes and random streams of `local` are left as they were.

    Args:
        batches: inputs, normalised as the task says, and targets.
        seed: of dropout; each batch has its own stream.
        on_batch: called with the number of batches done.

    Returns:
        One entry per module, norms without unit; an angle is nan where one of the gradients is 0 or not
        finite: a frozen module, a loss of weight 0.

    Raises:
        BadInput: a batch that cannot be trained on; see `LocalModel.backward`.

    Example:
        >>> import torch, infopro
        >>> local = infopro.localize(
        ...     infopro.models.cifar_resnet(20, 10), torch.zeros(2, 3, 32, 32), num_modules=2,
        ...     objective=infopro.objectives.Greedy(), task=infopro.tasks.Classification(num_classes=10))
        >>> first, last = module_gradients(local, [(torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]))])
        >>> first.angle_degrees[0] > 1, round(last.angle_degrees[0], 3)
        (True, 0.0)
    """
    parameters = [_trained(stage.part) for stage in local.stages]
    found: list[list[tuple[float, float, float]]] = [[] for _ in parameters]
    with kept_modes(local):
        local.train()
        for number, (images, targets) in enumerate(batches, start=1):
            stream = step_seed(seed, 0, number)
            own = _local_gradients(local, parameters, images, targets, stream)
            whole = _end_to_end_gradients(local, parameters, images, targets, stream)
            for rows, left, right in zip(found, own, whole, strict=True):
                rows.append((_norm(left), _norm(right), angle_degrees(left, right)))
            if on_batch is not None:
                on_batch(number)
    return tuple(_entry(module, rows) for module, rows in enumerate(found, start=1))


def angle_degrees(left: Gradient, right: Gradient) -> float:
    """The angle between two gradients, each one tensor per parameter and None for zeros; nan if one is 0.

    Kahan's formula, in float64: exact also where the directions are nearly the same, unlike acos.

    Example:
        >>> import torch
        >>> angle_degrees([torch.tensor([1.0, 0.0]), None], [None, torch.tensor([2.0])])
        90.0
    """
    left_norm, right_norm = _norm(left), _norm(right)
    if not (0 < left_norm < math.inf and 0 < right_norm < math.inf):
        return math.nan
    apart = together = 0.0
    for one, other in zip(left, right, strict=True):
        a: Tensor | float = 0.0 if one is None else one.double() / left_norm
        b: Tensor | float = 0.0 if other is None else other.double() / right_norm
        apart += _square(a - b)
        together += _square(a + b)
    return math.degrees(2 * math.atan2(math.sqrt(apart), math.sqrt(together)))


def _norm(gradient: Gradient) -> float:
    return math.sqrt(sum(_square(part.double()) for part in gradient if part is not None))


def _square(value: Tensor | float) -> float:
    return float(value.square().sum()) if isinstance(value, Tensor) else value * value


def _entry(module: int, rows: Sequence[tuple[float, float, float]]) -> ModuleGradient:
    local_norm, end_to_end_norm, angle = zip(*rows, strict=True) if rows else ((), (), ())
    return ModuleGradient(
        module=module, local_norm=local_norm, end_to_end_norm=end_to_end_norm, angle_degrees=angle
    )


def _trained(part: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in part.parameters() if parameter.requires_grad]


def _local_gradients(
    local: LocalModel, parameters: Sequence[Sequence[nn.Parameter]], images: Any, targets: Tensor, seed: int
) -> list[Gradient]:
    taken: list[Gradient] = []

    def take(index: int) -> None:
        taken.append([parameter.grad for parameter in parameters[index]])
        for parameter in local.parameters():  # what modules share must not add up
            parameter.grad = None

    with unchanged(local):
        local.backward(images, targets, seed=seed, on_stage_done=take)
    return taken


def _end_to_end_gradients(
    local: LocalModel, parameters: Sequence[Sequence[nn.Parameter]], images: Any, targets: Tensor, seed: int
) -> list[Gradient]:
    with unchanged(local), _seeded_behind_cuts(local, seed), torch.enable_grad():
        seed_stage(seed, 0)
        differentiate(local.task.loss(local.model(*as_inputs(images)), targets))
        return [[parameter.grad for parameter in stage] for stage in parameters]


@contextmanager
def _seeded_behind_cuts(local: LocalModel, seed: int) -> Iterator[None]:
    """While open, each module draws from the stream that `LocalModel.backward` gives it."""
    with ExitStack() as stack:
        for index, cut in enumerate(local.split.cuts, start=1):

            def begin(*_: Any, stage: int = index) -> None:
                seed_stage(seed, stage)

            handle = local.model.get_submodule(cut).register_forward_hook(begin)
            stack.callback(handle.remove)
        yield
