"""Sums over an epoch: on the device while it runs, then plain numbers for the log and for a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from infopro.engines import Engine, Work
from infopro.training.divergence import LossWatch
from infopro.types import StepOutput

__all__ = ["EpochSums", "Totals", "merged"]


@dataclass(frozen=True)
class EpochSums:
    """Losses times images, the task's counts, images and seconds: what an epoch's numbers are made of.

    `skipped` are steps that were left out, and whose images do not count.
    """

    losses: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by the module's index, as text
    counts: Sequence[float] = ()  # see `Task.counts`
    count: int = 0
    seconds: float = 0.0
    skipped: int = 0

    def means(self) -> tuple[dict[str, float], ...]:
        """Mean losses, module by module."""
        ordered = sorted(self.losses.items(), key=lambda item: int(item[0]))
        return tuple({name: value / self.count for name, value in found.items()} for _, found in ordered)


def merged(parts: Sequence[EpochSums]) -> EpochSums:
    """The sums of all modules: everybody's losses, and what the last one counted."""
    losses = {index: found for part in parts for index, found in part.losses.items()}
    last = parts[-1]
    return EpochSums(losses, last.counts, last.count, last.seconds, last.skipped)


class Totals:
    """Adds up what an engine's steps give; no step waits for a number.

    Args:
        before: sums of the same epoch up to where an interrupted run goes on.
    """

    def __init__(self, engine: Engine, before: EpochSums):
        own = [str(index) for index in engine.stages]
        self._engine = engine
        self._before = before if engine.replica == 0 else EpochSums()
        self._count = before.count
        self._skipped = before.skipped
        self._watch = LossWatch(engine.stages)
        self._losses: dict[str, dict[str, Tensor]] = {index: {} for index in own}
        self._counts: Tensor | None = None

    def add(self, out: StepOutput | None, work: Work) -> None:
        """One step's losses and counts; None for a step that was left out.

        Raises:
            Diverged: a loss of this step, or of one not long before, is not finite; see `LossWatch`.
        """
        if out is None:
            self._skipped += 1
            return
        self._watch.add(out.losses, epoch=work.phase.epoch, step=work.step)
        for sums, losses in zip(self._losses.values(), out.losses, strict=True):
            for name, value in losses.items():
                scaled = value.double() * work.size
                sums[name] = sums[name] + scaled if name in sums else scaled
        if self._engine.is_last:
            found = self._engine.local.task.counts(out.logits, work.batch.targets)
            self._counts = found if self._counts is None else self._counts + found
        self._count += work.total

    def sums(self, seconds: float) -> EpochSums:
        """All replicas' sums so far, of this process's modules; waits for the device.

        Raises:
            Diverged: a loss of any step since is not finite.
        """
        self._watch.finish()
        places = [(index, name) for index, sums in self._losses.items() for name in sums]
        num_counts = self._engine.local.task.num_counts
        counts = [0.0] * num_counts if self._counts is None else self._counts.tolist()
        own = [*(float(self._losses[index][name]) for index, name in places), *counts]
        before = [self._before.losses.get(index, {}).get(name, 0.0) for index, name in places]
        found = self._engine.sum(_added(own, [*before, *(self._before.counts or [0.0] * num_counts)]))
        losses: dict[str, dict[str, float]] = {}
        for (index, name), value in zip(places, found, strict=False):
            losses.setdefault(index, {})[name] = value
        seconds += self._before.seconds
        kept = losses or self._before.losses
        return EpochSums(kept, found[len(places) :], self._count, seconds, self._skipped)


def _added(left: Iterable[float], right: Iterable[float]) -> list[float]:
    return [a + b for a, b in zip(left, right, strict=True)]
