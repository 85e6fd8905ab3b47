"""Losses that leap: noticed while they can still be looked into, by a rule that ordinary training keeps."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infopro.training.divergence import Diverged

__all__ = ["LossSpike", "SpikeWatch", "Spiked", "stop_at_spikes"]

RECENT = 128  # steps that a loss is compared with
FEWEST = 64  # of them, before anything is said: a run's first steps are silent
IN_A_ROW = 3  # a batch of hard or wrongly labelled images alone is none
DEVIATIONS = 6.0  # above the median, in standard deviations as the median deviation estimates them
LEAST = 0.25  # above the median, as a share of the largest median so far: a loss near 0 leaps for nothing
_NORMAL = 1.4826  # a normal distribution's standard deviation, in median absolute deviations


class Spiked(Diverged):
    """A loss that leapt, where a run is to stop or to go back for that."""


@dataclass(frozen=True)
class LossSpike:
    """Where a module's loss leapt, and from where; its text is one line."""

    module: int  # 1-based, as epoch and step
    epoch: int
    step: int  # the last of the steps in a row
    loss: float
    median: float  # of the steps before
    limit: float  # which the loss has passed

    def __str__(self) -> str:
        return (
            f"the total loss of module {self.module} leapt in epoch {self.epoch}, step {self.step}: "
            f"{self.loss:.4g}, above {self.limit:.4g} for {IN_A_ROW} steps; it was {self.median:.4g}"
        )


class SpikeWatch:
    """Compares each module's total loss with those of the 128 steps before.

    A loss is high where it stands above the median by more than 6 standard deviations, estimated by the
    median absolute deviation, and by more than a quarter of the largest median so far. Three high ones in a
    row are a spike. It is told once; the next one counts when the loss has been lower in between. The first
    64 steps are silent. High losses join the 128, so that a new level is an old one after some time.

    Nothing is computed on a device, nothing waits. Of a resumed run `before` is what `state` gave, so that it
    finds what the undisturbed one would have.

    Args:
        modules: the 0-based indices of the modules that are watched.
        on_spike: called with each spike.
        before: see `state`; other modules' are passed over, as in `counts`.
        counts: spikes so far, by the module's index as text.

    Example:
        >>> found = []
        >>> watch = SpikeWatch(range(1), on_spike=found.append)
        >>> for step, loss in enumerate([2.0, 1.9, 2.1] * 30 + [1.0, 9.0, 8.0, 9.0]):
        ...     watch.look(0, loss, epoch=1, step=step)
        >>> print(*found)
        the total loss of module 1 leapt in epoch 1, step 94: 9, above 2.89 for 3 steps; it was 2
    """

    def __init__(
        self,
        modules: Sequence[int],
        *,
        on_spike: Callable[[LossSpike], object] | None = None,
        before: Mapping[str, Mapping[str, Any]] | None = None,
        counts: Mapping[str, int] | None = None,
    ):
        self._on_spike = on_spike
        self._modules = {index: _Module((before or {}).get(str(index), {})) for index in modules}
        self.counts = {str(index): (counts or {}).get(str(index), 0) for index in modules}

    def look(self, index: int, loss: float, *, epoch: int, step: int) -> None:
        """Note the finite loss of one module; `index` and `step` count from 0."""
        found = self._modules[index].add(loss)
        if found is None:
            return
        self.counts[str(index)] += 1
        if self._on_spike is not None:
            self._on_spike(LossSpike(index + 1, epoch, step + 1, loss, *found))

    def state(self) -> dict[str, dict[str, Any]]:
        """Plain values, by the module's index as text: what a checkpoint keeps."""
        return {str(index): module.state() for index, module in self._modules.items()}


class _Module:
    """One module's losses: in the order in which they came, and in the order of their size."""

    def __init__(self, before: Mapping[str, Any]):
        self._recent: deque[float] = deque(before.get("recent", ()))
        self._sorted = sorted(self._recent)
        self._high = int(before.get("high", 0))
        self._largest = float(before.get("largest", 0.0))

    def add(self, loss: float) -> tuple[float, float] | None:
        """The median and the limit, if this loss is the third high one in a row."""
        spike = None
        if len(self._recent) >= FEWEST:
            median = _median(self._sorted)
            self._largest = max(self._largest, abs(median))
            # looked at first: it needs no sorting, and nearly every loss stops here
            limit = median + LEAST * self._largest
            if loss > limit:
                limit = max(limit, median + DEVIATIONS * _NORMAL * self._median_deviation(median))
            self._high = self._high + 1 if loss > limit else 0
            spike = (median, limit) if self._high == IN_A_ROW else None
        self._recent.append(loss)
        insort(self._sorted, loss)
        if len(self._recent) > RECENT:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
        return spike

    def state(self) -> dict[str, Any]:
        return {"recent": list(self._recent), "high": self._high, "largest": self._largest}

    def _median_deviation(self, median: float) -> float:
        return _median(sorted(abs(loss - median) for loss in self._recent))


def stop_at_spikes(spike: LossSpike) -> None:
    """An `on_spike` that ends the run.

    Raises:
        Spiked: always.
    """
    raise Spiked(
        str(spike),
        remedy="lower --learning-rate, or set --clip-gradients, with another --output; checkpoints from "
        "before are whole",
    )


def _median(ordered: Sequence[float]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
