"""The loop of a decoupled run: every process trains its module at its own pace; all test at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from infopro.data import ImageData
from infopro.engines import Phase
from infopro.engines.decoupled import Decoupled, Freshness
from infopro.random_streams import step_seed
from infopro.training.divergence import require_finite_weights
from infopro.training.evaluation import autocast, evaluate_through, evaluation_mode
from infopro.training.loop import Position, epoch_record, of_all, set_learning_rate
from infopro.training.reading import Reading
from infopro.training.schedules import Schedule
from infopro.training.spikes import LossSpike
from infopro.training.totals import EpochSums, Totals
from infopro.training.updates import Updates
from infopro.types import EpochRecord

__all__ = ["DecoupledEpoch", "train_decoupled"]


@dataclass(frozen=True)
class DecoupledEpoch:
    """One module's own epoch: as many steps as the training set has batches."""

    module: int  # 1-based
    epoch: int
    learning_rate: float
    losses: dict[str, float]
    seconds: float
    freshness: Freshness


def train_decoupled(
    engine: Decoupled,
    data: ImageData,
    *,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    epochs: int,
    batch_size: int,
    seed: int,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    clip_gradients: float | None = None,
    num_workers: int = 0,
    on_step: Callable[[int, int], object] | None = None,
    on_spike: Callable[[LossSpike], object] | None = None,
    first_epoch: int = 1,
    on_module_epoch: Callable[[DecoupledEpoch], object] | None = None,
    save: Callable[[Position], object] | None = None,
) -> list[EpochRecord]:
    """Train this process's module for `epochs` epochs of its own, whatever the others are doing.

    Each module has its own epochs and schedule (arXiv 2106.06401). One that has finished runs the network's
    images, or the latest features that it got, forward in eval mode, until the next module has finished, too.
    The network is tested once, at the end. It deviates from the publication, where one process drew a module
    at random for every step: here the processes' own speeds decide, so that no two runs are equal.

    Args:
        clip_gradients: largest L2 norm of the gradients of a module with its heads; norms join the losses.
        on_spike: called where this module's loss has leapt, see `SpikeWatch`.
        on_module_epoch: called with this module's own epochs.
        save: called by every process at the end, and when the run is asked to stop.

    Returns:
        One record, of the last epoch, in the process that writes; none in the others.

    Raises:
        Diverged: a loss that was not finite; weights that are not, instead of saving them.
    """
    local = engine.local
    reading = Reading(data, engine, batch_size, seed, device, num_workers)
    steps = len(reading.training_phase(1, first=0).sizes)
    updates = Updates(engine, optimizer, clip=clip_gradients)
    local.train()
    sums, rate, finished = EpochSums(), 0.0, first_epoch - 1
    for epoch in range(first_epoch, epochs + 1):
        totals = Totals(engine, sums.of_next_epoch(), on_spike=on_spike)
        started = time.perf_counter()
        phase = reading.training_phase(epoch, first=0)
        for work in engine.feed(phase, lambda: reading.training_batches(phase)):  # noqa: B023
            rate = schedule(epoch, work.step / steps)
            set_learning_rate(optimizer, rate)
            updates.begin()
            with autocast(device, precision):
                out = engine.backward(work, seed=step_seed(seed, epoch, work.step))
            updated = updates.finish(out, work)
            engine.count_update()
            totals.add(updated, work)
            if on_step is not None:
                on_step(epoch, work.step + 1)
        if engine.stopped:
            break
        sums, finished = totals.sums(time.perf_counter() - started), epoch
        if on_module_epoch is not None:
            on_module_epoch(_own(engine, epoch, rate, sums))
    if first_epoch <= epochs and not engine.stopped:
        _serve(engine, reading, epochs, precision)
    finished = engine.finish_training(finished)
    if first_epoch > epochs:
        return []
    engine.stopped = engine.stopped and finished < epochs  # else nothing is left to be stopped
    records = [] if engine.stopped else _tested(engine, reading, epochs, sums, rate, precision)
    if save is not None:
        require_finite_weights([(k, local.stages[k]) for k in engine.stages], epoch=finished)
        save(Position(finished))
    return records


def _tested(
    engine: Decoupled, reading: Reading, epochs: int, sums: EpochSums, rate: float, precision: torch.dtype
) -> list[EpochRecord]:
    everyones = of_all(engine, sums)
    test = evaluate_through(engine, reading, epoch=epochs, precision=precision)
    if not engine.writes:
        return []
    return [epoch_record(epochs, everyones, test, rate, 100.0, task=engine.local.task)]


def _serve(engine: Decoupled, reading: Reading, epochs: int, precision: torch.dtype) -> None:
    """Go on making features until nobody needs them any more."""

    def batches(further: int) -> tuple[Phase, Iterator[tuple[Tensor, Tensor]]]:
        phase = reading.training_phase(epochs + further, first=0)
        return phase, reading.training_batches(phase)

    with evaluation_mode(engine.local), torch.no_grad(), autocast(reading.device, precision):
        for work in engine.feed_on(batches):
            engine.predict(work)


def _own(engine: Decoupled, epoch: int, rate: float, sums: EpochSums) -> DecoupledEpoch:
    module = engine.stages.start
    losses = dict(sums.losses[str(module)])
    means = {name: value / max(sums.count, 1) for name, value in losses.items()}
    return DecoupledEpoch(module + 1, epoch, rate, means, sums.seconds, engine.freshness())
