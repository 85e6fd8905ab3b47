"""The training of one module: what the others do, or did, reaches it as its input alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from infopro.data import num_batches
from infopro.engines.crossings import Crossings
from infopro.errors import BadInput
from infopro.local import LocalModel, LocalStage, differentiate
from infopro.random_streams import seed_stage, step_seed
from infopro.splitting import Flow
from infopro.tasks import Task
from infopro.training._module_batches import Feeding, Source
from infopro.training.divergence import GRADIENT_NORM, LossWatch, require_finite_weights
from infopro.training.evaluation import Evaluation, Tally, autocast, evaluation_mode, evaluation_of
from infopro.training.loop import set_learning_rate
from infopro.training.schedules import Schedule
from infopro.training.spikes import LossSpike, SpikeWatch
from infopro.training.updates import clipped

__all__ = ["ModuleEpoch", "ModuleTraining"]


@dataclass(frozen=True)
class ModuleEpoch:
    """One epoch of one module."""

    module: int  # 1-based
    epoch: int  # 1-based, of this module
    learning_rate: float
    losses: Mapping[str, float]  # mean over the epoch
    seconds: float  # training time
    images_per_second: float
    test_error: float | None  # %, of its own head if that gives class logits; the last module: the network's


@dataclass(frozen=True)
class ModuleTraining:
    """How any of the modules is trained."""

    local: LocalModel
    crossings: Crossings
    feeding: Feeding
    schedule: Schedule
    epochs: int
    precision: torch.dtype
    make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    on_step: Callable[[int, int, int], object] | None
    clip_gradients: float | None = None
    on_spike: Callable[[LossSpike], object] | None = None

    def epochs_of(
        self, index: int, source: Source, *, first: int
    ) -> Iterator[tuple[ModuleEpoch, float, Evaluation | None]]:
        """Each epoch's record, training error (the last module's) and test; meanwhile it is on the device."""
        stage = self.local.stages[index]
        stage.to(self.feeding.device)
        optimizer = self.make_optimizer(stage.parameters())
        spikes = SpikeWatch(range(index, index + 1), on_spike=self.on_spike)
        for epoch in range(first, self.epochs + 1):
            started = time.perf_counter()
            rate, sums = self._epoch(index, source, optimizer, epoch, spikes)
            losses = sums.losses()  # waits for the device
            require_finite_weights([(index, stage)], epoch=epoch)
            seconds = time.perf_counter() - started
            test = self._test(index, source)
            error = None if test is None else test.error
            speed = sums.count / seconds
            done = ModuleEpoch(index + 1, epoch, rate, losses, seconds, speed, error)
            yield done, sums.error(self.local.task), test
        optimizer.zero_grad(set_to_none=True)
        stage.to("cpu")

    def _epoch(
        self, index: int, source: Source, optimizer: Optimizer, epoch: int, spikes: SpikeWatch
    ) -> tuple[float, _Sums]:
        """One epoch; returns the last learning rate and the sums."""
        stage, sums = self.local.stages[index], _Sums()
        watch = LossWatch(range(index, index + 1), then=spikes.look)
        steps = num_batches(self.feeding.data.train, batch_size=self.feeding.batch_size)
        stage.train()
        for step, found in enumerate(source.epoch(epoch)):
            rate = self.schedule(epoch, step / steps)
            set_learning_rate(optimizer, rate)
            optimizer.zero_grad(set_to_none=True)
            seed_stage(step_seed(self.feeding.seed, epoch, step), index)
            size = len(found.targets)
            with autocast(self.feeding.device, self.precision):
                flow = self.crossings.start(index, found.tensors, size=size, training=True)
                flow, losses = stage(flow, found.batch)
                differentiate(losses["total"])
            if self.clip_gradients is not None:
                norm = clipped(list(stage.parameters()), self.clip_gradients)
                losses = {**losses, GRADIENT_NORM: norm}
            optimizer.step()
            output = stage.part.result(flow) if stage.context.is_last else None
            counts = None if output is None else self.local.task.counts(output, found.targets)
            sums.add(losses, counts, size)
            watch.add([losses], epoch=epoch, step=step)
            if self.on_step is not None:
                self.on_step(index + 1, epoch, step + 1)
        watch.finish()
        return rate, sums

    @torch.no_grad()
    def _test(self, index: int, source: Source) -> Evaluation | None:
        """What the module's task head, or the network's output, is worth on the test images."""
        stage, task, device = self.local.stages[index], self.local.task, self.feeding.device
        tally, count = Tally(task), 0
        with evaluation_mode(stage), autocast(device, self.precision):
            for found in source.test():
                size = len(found.targets)
                flow = stage.part(self.crossings.start(index, found.tensors, size=size, training=False))
                output = _prediction(stage, flow)
                if output is None:
                    return None
                tally.add(output, found.targets)
                count += size
        return evaluation_of(task, tally.values(), count)


class _Sums:
    """Sums over an epoch, on the device: no step waits for a number."""

    def __init__(self) -> None:
        self.count = 0
        self._losses: dict[str, Tensor] = {}
        self._counts: Tensor | None = None

    def add(self, losses: Mapping[str, Tensor], counts: Tensor | None, size: int) -> None:
        for name, value in losses.items():
            scaled = value.detach().double() * size
            self._losses[name] = self._losses[name] + scaled if name in self._losses else scaled
        if counts is not None:
            self._counts = counts if self._counts is None else self._counts + counts
        self.count += size

    def losses(self) -> dict[str, float]:
        return {name: float(value) / self.count for name, value in self._losses.items()}

    def error(self, task: Task) -> float:
        """Of the last module, which alone makes the network's output."""
        return float("nan") if self._counts is None else task.error(self._counts.tolist())


def _prediction(stage: LocalStage, flow: Flow) -> Any:
    """The network's output, or the logits of the module's own head; None where it has none."""
    if stage.context.is_last:
        return stage.part.result(flow)
    contrastive = getattr(stage.objective, "temperature", None) is not None  # its head gives no logits
    if contrastive or "task" not in stage.heads:
        return None
    output = stage.heads["task"](stage.part.boundary(flow))
    try:
        stage.objective.task.check_output(output)
    except BadInput:
        return None
    return output
