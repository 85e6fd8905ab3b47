"""The properties that define local learning, as functions that users call on their own network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from infopro.local import LocalModel
from infopro.reference import reference_backward
from infopro.splitting import as_inputs
from infopro.types import Batch, StepOutput

__all__ = ["IsolationReport", "ParityReport", "isolation_check", "parity_check", "unchanged"]


@dataclass(frozen=True)
class IsolationReport:
    """Whether each module's loss trains that module and its heads only."""

    leaks: tuple[tuple[int, str], ...]  # (stage whose loss leaks, parameter that it reaches)
    untrained: tuple[str, ...]  # trainable parameters that no loss reaches

    @property
    def isolated(self) -> bool:
        return not self.leaks

    def __bool__(self) -> bool:
        return self.isolated


@dataclass(frozen=True)
class ParityReport:
    """Whether the recorded parts compute, bit for bit, what the network's own forward computes locally."""

    differences: tuple[str, ...]  # losses, logits, gradients and buffers that differ from the reference
    equals_end_to_end: bool  # the gradients are those of ordinary back-propagation
    num_modules: int
    only_last_trained: bool  # K = 1, or all before the last module is frozen: nothing is local then

    @property
    def passed(self) -> bool:
        return not self.differences and self.equals_end_to_end == self.only_last_trained

    def __bool__(self) -> bool:
        return self.passed


def isolation_check(local: LocalModel, images: Any, targets: Tensor) -> IsolationReport:
    """Differentiate every stage's loss with respect to every other stage's parameters: nothing may come back.

    Gradients, buffers and random streams of `local` are left as they were.

    Example:
        >>> import torch, infopro
        >>> local = infopro.localize(
        ...     infopro.models.cifar_resnet(20, 10), torch.zeros(2, 3, 32, 32), num_modules=2,
        ...     objective=infopro.objectives.Greedy(), task=infopro.tasks.Classification(num_classes=10))
        >>> infopro.isolation_check(local, torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])).isolated
        True
    """
    inputs = as_inputs(images)
    batch = Batch(images=inputs[0], targets=targets)
    named = [(name, p) for name, p in local.named_parameters() if p.requires_grad]
    leaks: list[tuple[int, str]] = []
    reached: set[int] = set()

    def differentiate(index: int, losses: Mapping[str, Tensor]) -> None:
        """The graph stays whole: the stage itself must cut it."""
        own = {id(p) for p in local.stages[index].parameters()}
        if not losses["total"].requires_grad:
            return
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            losses["total"], [p for _, p in named], allow_unused=True, retain_graph=True
        )
        got = [pair for pair, gradient in zip(named, found, strict=True) if gradient is not None]
        reached.update(id(parameter) for _, parameter in got)
        leaks.extend((index, name) for name, parameter in got if id(parameter) not in own)

    with unchanged(local):
        local.walk(inputs, batch, differentiate)
    untrained = tuple(name for name, p in named if id(p) not in reached)
    return IsolationReport(tuple(leaks), untrained)


def parity_check(local: LocalModel, images: Any, targets: Tensor) -> ParityReport:
    """Compare one `local.backward` with `reference_backward` and with ordinary back-propagation.

    Losses, logits, every gradient and every buffer must equal the reference bit for bit; the gradients must
    equal back-propagation's if K = 1 (or only the last module is trained) and must not if K > 1. `local` is
    left as it was.
    """

    def end_to_end(images: Any, targets: Tensor) -> StepOutput:
        output = local.model(*as_inputs(images))
        loss = local.task.loss(output, targets)
        if loss.requires_grad:
            torch.autograd.backward(loss)
        return StepOutput(({"total": loss.detach()},), local.task.logits(output).detach())

    found = _trace(local, local.backward, images, targets)
    expected = _trace(local, lambda i, t: reference_backward(local, i, t), images, targets)
    plain = _trace(local, end_to_end, images, targets)
    network = [name for name in found if name.startswith("gradient of model.")]
    equals = all(_same(found[name], plain.get(name)) for name in network)
    names = dict.fromkeys([*expected, *found])
    differences = tuple(n for n in names if not _same(found.get(n), expected.get(n)))
    earlier = [p for stage in local.stages[:-1] for p in stage.part.parameters()]
    only_last_trained = not any(p.requires_grad for p in earlier)
    return ParityReport(differences, equals, local.split.num_modules, only_last_trained)


def _trace(
    local: LocalModel, step: Callable[[Any, Tensor], StepOutput], images: Any, targets: Tensor
) -> dict[str, Tensor | None]:
    """Everything that one step computes, by name."""
    with unchanged(local):
        torch.manual_seed(0)
        out = step(images, targets)
        trace: dict[str, Tensor | None] = {"logits": out.logits.clone()}
        for index, losses in enumerate(out.losses):
            trace |= {f"loss {name} of module {index + 1}": value.clone() for name, value in losses.items()}
        trace |= {f"gradient of {name}": p.grad for name, p in local.named_parameters()}
        trace |= {f"buffer {name}": b.clone() for name, b in local.named_buffers()}
    return trace


def _same(left: Tensor | None, right: Tensor | None) -> bool:
    if left is None or right is None:
        return left is right
    return left.dtype == right.dtype and torch.equal(left, right)


@contextmanager
def unchanged(local: LocalModel) -> Iterator[None]:
    """Gradients, buffers and random streams come back as they were."""
    gradients = [(p, p.grad) for p in local.parameters()]
    buffers = [(b, b.detach().clone()) for b in local.buffers()]
    devices = sorted({p.device.index or 0 for p in local.parameters() if p.device.type == "cuda"})
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
