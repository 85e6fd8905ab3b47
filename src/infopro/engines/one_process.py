"""All modules in turn, in one process: `LocalModel.backward`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from torch.optim import Optimizer

from infopro.engines._base import Batches, Engine, Phase, Work
from infopro.engines.stage_steps import StageSteps
from infopro.local import LocalModel
from infopro.types import Batch, StepOutput

__all__ = ["OneProcess"]


class OneProcess(Engine):
    """The engine that every other one is compared with.

    Args:
        optimizer: one to be stepped stage by stage, each as soon as its gradients are there, which are then
            freed; the weights are the same as without it.
        stop: asked before every batch, of a test too; True ends the phase there.
    """

    def __init__(
        self,
        local: LocalModel,
        *,
        optimizer: Optimizer | None = None,
        stop: Callable[[], bool] = lambda: False,
    ):
        self.local = local
        self.optimizer = optimizer
        self._step = None if optimizer is None else StageSteps(local, optimizer)
        self.stages = range(len(local.stages))
        self._stop = stop

    def feed(self, phase: Phase, batches: Callable[[], Batches]) -> Iterator[Work]:
        source = batches()
        for step in count(phase.first):
            if self._stop():
                self.stopped = True
                return
            found = next(source, None)
            if found is None:
                return
            images, targets = found
            yield Work(None, Batch(images, targets), phase, step)

    def backward(self, work: Work, *, seed: int) -> StepOutput:
        batch = work.batch
        return self.local.backward(batch.images, batch.targets, seed=seed, on_stage_done=self._step)

    def predict(self, work: Work) -> Any:
        return self.local.model(work.batch.images)
