"""All modules in turn, in one process: `LocalModel.backward`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from infopro.engines._base import Batches, Engine, Phase, Work
from infopro.local import LocalModel
from infopro.types import Batch, StepOutput

__all__ = ["OneProcess"]


class OneProcess(Engine):
    """The engine that every other one is compared with.

    Args:
        stop: asked before every training step; True ends the phase there.
    """

    def __init__(self, local: LocalModel, *, stop: Callable[[], bool] = lambda: False):
        self.local = local
        self.stages = range(len(local.stages))
        self._stop = stop

    def feed(self, phase: Phase, batches: Callable[[], Batches]) -> Iterator[Work]:
        source = batches()
        for step in count(phase.first):
            if phase.training and self._stop():
                self.stopped = True
                return
            found = next(source, None)
            if found is None:
                return
            images, targets = found
            yield Work(None, Batch(images, targets), phase, step)

    def backward(self, work: Work, *, seed: int) -> StepOutput:
        return self.local.backward(work.batch.images, work.batch.targets, seed=seed)

    def predict(self, work: Work) -> Any:
        return self.local.model(work.batch.images)
