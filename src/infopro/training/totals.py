"""Sums over an epoch: on the device while it runs, then plain numbers for the log and for a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from infopro.engines import Engine, Work
from infopro.training.divergence import LossWatch
from infopro.training.spikes import LossSpike, SpikeWatch
from infopro.types import StepOutput

__all__ = ["EpochSums", "Totals", "merged"]


@dataclass(frozen=True)
class EpochSums:
    """Losses times images, the task's counts, images and seconds: what an epoch's numbers are made of.

    `skipped` are steps that were left out, and whose images do not count. `replicas` are the losses of each
    replica, where there are several: sums that go on must be added up in the order of an undisturbed epoch.
    `watched` is what `SpikeWatch.state` gave, of the epochs before, too.
    """

    losses: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # by the module's index, as text
    counts: Sequence[float] = ()  # see `Task.counts`
    count: int = 0
    seconds: float = 0.0
    skipped: int = 0
    replicas: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    spikes: Mapping[str, int] = field(default_factory=dict)  # of losses, by the module's index, as text
    watched: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of_next_epoch(self) -> EpochSums:
        """What the next epoch begins with."""
        return EpochSums(watched=self.watched)

    def of_replica(self, index: str, name: str, replica: int, replicas: int) -> float:
        """What one of `replicas` replicas begins with; of another number, the first has all."""
        kept = self.replicas.get(index, {}).get(name, ())
        if len(kept) == replicas:
            return kept[replica]
        return self.losses.get(index, {}).get(name, 0.0) if replica == 0 else 0.0

    def means(self) -> tuple[dict[str, float], ...]:
        """Mean losses, module by module."""
        ordered = sorted(self.losses.items(), key=lambda item: int(item[0]))
        return tuple({name: value / self.count for name, value in found.items()} for _, found in ordered)


def merged(parts: Sequence[EpochSums]) -> EpochSums:
    """The sums of all modules: everybody's losses, and what the last one counted."""
    losses = {index: found for part in parts for index, found in part.losses.items()}
    replicas = {index: found for part in parts for index, found in part.replicas.items()}
    spikes = {index: number for part in parts for index, number in part.spikes.items()}
    watched = {index: found for part in parts for index, found in part.watched.items()}
    last = parts[-1]
    return EpochSums(losses, last.counts, last.count, last.seconds, last.skipped, replicas, spikes, watched)


class Totals:
    """Adds up what an engine's steps give; no step waits for a number.

    Args:
        before: sums of the same epoch up to where an interrupted run goes on.
        on_spike: see `SpikeWatch`; of several replicas the first one's losses are watched.
    """

    def __init__(
        self,
        engine: Engine,
        before: EpochSums,
        *,
        on_spike: Callable[[LossSpike], object] | None = None,
    ):
        own = [str(index) for index in engine.stages]
        self._engine = engine
        self._before = before
        self._count = before.count
        self._skipped = before.skipped
        watched = engine.stages if engine.replica == 0 else ()
        self._spikes = SpikeWatch(watched, on_spike=on_spike, before=before.watched, counts=before.spikes)
        self._watch = LossWatch(engine.stages, then=self._spikes.look if watched else None)
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
        for (index, sums), losses in zip(self._losses.items(), out.losses, strict=True):
            for name, value in losses.items():
                sums[name] = sums.get(name, self._start(index, name)) + value.double() * work.size
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
        own = {
            index: {name: float(value) for name, value in (sums or self._starts(index)).items()}
            for index, sums in self._losses.items()
        }
        places = [(index, name) for index, found in own.items() for name in found]
        values = [own[index][name] for index, name in places]
        everyones = self._engine.each([*values, *self._own_counts()])
        losses: dict[str, dict[str, float]] = {index: {} for index in own}
        replicas: dict[str, dict[str, list[float]]] = {index: {} for index in own}
        for (index, name), *found in zip(places, *everyones, strict=False):
            losses[index][name], replicas[index][name] = sum(found), found
        counts = [sum(column) for column in zip(*(each[len(places) :] for each in everyones), strict=True)]
        seconds += self._before.seconds
        apart = replicas if len(everyones) > 1 else {}
        return EpochSums(
            losses,
            counts,
            self._count,
            seconds,
            self._skipped,
            apart,
            spikes=dict(self._spikes.counts),
            watched=self._spikes.state(),
        )

    def _own_counts(self) -> list[float]:
        """With those from before in the first replica's: whole numbers, in any order the same."""
        num_counts = self._engine.local.task.num_counts
        counts = [0.0] * num_counts if self._counts is None else self._counts.tolist()
        before = self._before.counts if self._engine.replica == 0 else ()
        return [a + b for a, b in zip(counts, before or [0.0] * num_counts, strict=True)]

    def _start(self, index: str, name: str) -> float:
        return self._before.of_replica(index, name, self._engine.replica, self._engine.replicas)

    def _starts(self, index: str) -> dict[str, float]:
        return {name: self._start(index, name) for name in self._before.losses.get(index, {})}
