"""Losses, gradients and weights that are no numbers any more: found early, and named."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from infopro.errors import InfoProError

__all__ = ["GRADIENT_NORM", "Diverged", "LossWatch", "diverged", "require_finite_weights"]

GRADIENT_NORM = "gradient_norm"  # stands among a module's losses where it is measured
_REMEDY = (
    "lower --learning-rate or that module's weight, or set --clip-gradients, with another --output; "
    "checkpoints from before are whole"
)


class Diverged(InfoProError):
    """A loss, gradient or weight became infinite or not a number; the message names the module."""


@dataclass(frozen=True)
class _Pending:
    """One step's losses on their way from the device."""

    names: tuple[tuple[int, str], ...]  # module's index, loss
    values: Tensor  # [len(names)] float64, on the host
    there: Any  # a CUDA event, passed once they are there; None: they are there
    epoch: int
    step: int


class LossWatch:
    """Looks at every step's losses as soon as the device has made them.

    A CPU's are looked at in their own step. A GPU's are copied to the host behind the step and read in the
    first later one that finds them there, so that no step waits for the device; only where the host is `most`
    steps ahead of the device does it wait for the oldest. `finish` waits for all.

    Args:
        modules: the 0-based indices of the modules whose losses are given.
        most: steps that may be unread.
        then: called with a module's index, its total loss, `epoch` and `step`, once that loss is there and
            finite.

    Example:
        >>> watch = LossWatch(range(1, 2))
        >>> watch.add([{"task": torch.tensor(0.5)}], epoch=1, step=0)
        >>> watch.add([{"task": torch.tensor(float("nan"))}], epoch=1, step=1)
        Traceback (most recent call last):
        infopro.training.divergence.Diverged: the task loss of module 2 is not finite in epoch 1, ...
    """

    def __init__(self, modules: Sequence[int], *, most: int = 50, then: Callable[..., object] | None = None):
        self._modules = modules
        self._most = most
        self._then = then
        self._pending: deque[_Pending] = deque()

    def add(self, losses: Sequence[Mapping[str, Tensor]], *, epoch: int, step: int) -> None:
        """Note one step's losses, module by module, and look at those that are there.

        Raises:
            Diverged: a loss of this step, or of one not long before, that is not finite.
        """
        named = [(index, name) for index, each in zip(self._modules, losses, strict=True) for name in each]
        values = torch.stack([value.detach().double() for each in losses for value in each.values()])
        there = None
        if values.is_cuda:
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            values = host.copy_(values, non_blocking=True)
            there = torch.cuda.Event()  # type: ignore[no-untyped-call]
            there.record()
        self._pending.append(_Pending(tuple(named), values, there, epoch, step))
        self._look(most=self._most)

    def finish(self) -> None:
        """Look at all that were added; waits for the device.

        Raises:
            Diverged: as `add`.
        """
        self._look(most=0)

    def _look(self, *, most: int) -> None:
        while self._pending:
            oldest = self._pending[0]
            if oldest.there is not None and len(self._pending) <= most and not oldest.there.query():
                return
            if oldest.there is not None:
                oldest.there.synchronize()
            self._pending.popleft()
            _refuse(oldest)
            if self._then is not None:
                _pass_on(oldest, self._then)


def diverged(index: int, name: str, *, got: float, epoch: int, step: int) -> Diverged:
    """The error of one loss; `index` and `step` count from 0."""
    what = "gradient norm" if name == GRADIENT_NORM else f"{name} loss"
    return Diverged(
        f"the {what} of module {index + 1} is not finite in epoch {epoch}, step {step + 1}",
        got=got,
        remedy=_REMEDY,
    )


def require_finite_weights(stages: Iterable[tuple[int, nn.Module]], *, epoch: int) -> None:
    """Refuse weights that no checkpoint may hold; waits for the device, once.

    Args:
        stages: the modules of this process with their 0-based indices.

    Raises:
        Diverged: a parameter that is not finite everywhere.
    """
    found = [(index, name, p) for index, stage in stages for name, p in stage.named_parameters()]
    local = [_own_share(p.detach()) for _, _, p in found]
    if not local:
        return
    finite = torch.stack([p.isfinite().all().to(local[0].device, non_blocking=True) for p in local])
    for (index, name, _), sound in zip(found, finite.tolist(), strict=True):
        if not sound:
            raise Diverged(
                f"the weights of module {index + 1} are not finite in epoch {epoch}",
                got=name,
                remedy=_REMEDY,
            )


def _own_share(parameter: Any) -> Tensor:
    """What this process holds of a parameter that is shared out, or all of it."""
    found: Tensor = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    return found


def _refuse(step: _Pending) -> None:
    for (index, name), value in zip(step.names, step.values.numpy(), strict=True):
        if not math.isfinite(value):
            raise diverged(index, name, got=float(value), epoch=step.epoch, step=step.step)


def _pass_on(step: _Pending, then: Callable[..., object]) -> None:
    for (index, name), value in zip(step.names, step.values.numpy(), strict=True):
        if name == "total":
            then(index, float(value), epoch=step.epoch, step=step.step)
