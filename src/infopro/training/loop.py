"""The training loop: one for every engine, in one process or in many."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

import torch
from torch import Tensor

from infopro.data import ImageData
from infopro.engines import Engine, OneProcess
from infopro.errors import BadInput
from infopro.local import LocalModel
from infopro.random_streams import step_seed
from infopro.tasks import Task
from infopro.training._replica_state import apart
from infopro.training.averaging import WeightAverages, settle
from infopro.training.divergence import Diverged, require_finite_weights
from infopro.training.evaluation import Evaluation, autocast, evaluate_through
from infopro.training.reading import Reading
from infopro.training.schedules import Schedule
from infopro.training.spikes import LossSpike
from infopro.training.totals import EpochSums, Totals, merged
from infopro.training.updates import Updates
from infopro.types import EpochRecord

__all__ = ["Position", "epoch_record", "of_all", "set_learning_rate", "train"]


@dataclass(frozen=True)
class Position:
    """How far a run has come: whole epochs, steps of the next one, and that one's sums so far."""

    epoch: int = 0
    step: int = 0
    best_test_error: float = 100.0
    sums: EpochSums = field(default_factory=EpochSums)
    replicas: Mapping[str, Tensor] = field(default_factory=dict)  # what each has for itself: see `apart`


def train(
    local: LocalModel,
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
    on_divergence: Literal["stop", "skip"] = "stop",
    averages: WeightAverages | None = None,
    engine: Engine | None = None,
    start: Position | None = None,
    num_workers: int = 0,
    on_step: Callable[[int, int], object] | None = None,
    on_spike: Callable[[LossSpike], object] | None = None,
    on_epoch: Callable[[EpochRecord], object] | None = None,
    save: Callable[[Position], object] | None = None,
) -> list[EpochRecord]:
    """Train `local` on `data.train`, testing the network after every epoch.

    Order, augmentation and dropout depend on (seed, epoch, step) alone, so that a run that starts at a
    `Position` with the weights and optimizer state of then goes on bit for bit like the undisturbed one. The
    first batch is checked, see `LocalModel.check`.

    Args:
        precision: float32, or bfloat16 for autocast.
        clip_gradients: largest L2 norm of the gradients of one module with its heads; see `Updates`.
        on_divergence: what follows a loss, or a measured gradient norm, that is not finite. "stop":
            `Diverged`, in the same step or not long after it, see `LossWatch`. "skip": the step is left out,
            see `Updates`; every step waits for the device then.
        averages: kept up after every step. Every test is of them then, in place of the weights, which stay in
            the network: it trains on, and ends, as if nothing had been averaged.
        engine: how the modules are run; all in this process, if not given. Every process of a run calls this
            function, with the optimizer of `engine.parameters()`.
        start: where an interrupted run goes on.
        on_step: called with (epoch, number of steps done in it).
        on_spike: called where a module's loss has leapt, see `SpikeWatch`, by the process that trains it; the
            records count spikes in any case. What it raises ends the training.
        on_epoch: called with the record of each finished epoch, by the process that writes.
        save: called by every process after each epoch, and when the engine was asked to stop.

    Returns:
        The records of the finished epochs; none in a process that does not write.

    Raises:
        BadInput: a first batch that cannot be trained on; an engine or an optimizer of another model.
        Diverged: a loss that is not finite; weights that are not, instead of saving them.
    """
    engine = engine or OneProcess(local)
    _require_matching(local, engine, optimizer, averages)
    updates = Updates(engine, optimizer, clip=clip_gradients, skip=on_divergence == "skip", averages=averages)
    reading = Reading(data, engine, batch_size, seed, device, num_workers)
    now, records = start or Position(), list[EpochRecord]()
    while now.epoch < epochs:
        epoch, done, started = now.epoch + 1, now.step, time.perf_counter()
        totals = Totals(engine, now.sums, on_spike=on_spike)
        phase = reading.training_phase(epoch, first=now.step)
        local.train()
        for work in engine.feed(phase, lambda: reading.training_batches(phase)):  # noqa: B023
            set_learning_rate(optimizer, schedule(epoch, work.step / len(phase.sizes)))
            updates.begin()
            with autocast(device, precision):
                out = engine.backward(work, seed=step_seed(seed, epoch, work.step))
            totals.add(updates.finish(out, work), work)
            done = work.step + 1
            if on_step is not None:
                on_step(epoch, done)
        replicas = apart(engine, averages) if engine.stopped else {}
        settle(engine, averages)
        sums = of_all(engine, totals.sums(time.perf_counter() - started))  # waits for the device
        if not engine.stopped:
            test = evaluate_through(engine, reading, epoch=epoch, precision=precision, averages=averages)
        if engine.stopped:  # in the middle of a test, too: all steps of the epoch are done then
            now, old = Position(now.epoch, done, now.best_test_error, sums, replicas), now
            if save is not None and done > old.step:
                _save(save, now, engine)
            return records
        if engine.writes:
            rate = schedule(epoch, (len(phase.sizes) - 1) / len(phase.sizes))
            records.append(epoch_record(epoch, sums, test, rate, now.best_test_error, task=local.task))
        best = records[-1].best_test_error if engine.writes else now.best_test_error
        now = Position(epoch, best_test_error=best, sums=sums.of_next_epoch())
        if engine.writes and on_epoch is not None:
            on_epoch(records[-1])
        if save is not None:
            _save(save, now, engine)
    return records


def _save(save: Callable[[Position], object], now: Position, engine: Engine) -> None:
    """No checkpoint holds weights that are not finite: a gradient may be what a loss was not."""
    own = [(index, engine.local.stages[index]) for index in engine.stages]
    require_finite_weights(own, epoch=now.epoch + (now.step > 0))
    save(now)


def _require_matching(
    local: LocalModel,
    engine: Engine,
    optimizer: torch.optim.Optimizer,
    averages: WeightAverages | None = None,
) -> None:
    if engine.local is not local:
        raise BadInput("the engine runs another model", remedy="call train(engine.local, ...)")
    if averages is not None and averages.model is not local.model:
        raise BadInput("the averages are of another model", remedy="make them of local.model")
    if engine.optimizer not in (None, optimizer):
        raise BadInput(
            "the engine steps another optimizer", remedy="call train(optimizer=engine.optimizer, ...)"
        )
    own = {id(parameter) for parameter in engine.parameters()}
    strange = sum(id(p) not in own for group in optimizer.param_groups for p in group["params"])
    if strange:
        raise BadInput(
            "the optimizer holds parameters that are not trained here",
            got=f"{strange} of them",
            remedy="make it of engine.parameters(), or of local.parameters(), once the engine is made",
        )


def of_all(engine: Engine, own: EpochSums) -> EpochSums:
    """Every module's sums, in the process that writes; only its own in the others."""
    everyone = engine.gather(asdict(own))
    return own if everyone is None else merged([EpochSums(**part) for part in everyone])


def epoch_record(
    epoch: int, sums: EpochSums, test: Evaluation, rate: float, best: float, *, task: Task
) -> EpochRecord:
    """A line of the log.

    Raises:
        Diverged: an epoch of which every step was left out.
    """
    if not sums.count:
        raise Diverged(f"every step of epoch {epoch} was left out", remedy="lower --learning-rate")
    counted = {"skipped_steps": sums.skipped, "loss_spikes": sum(sums.spikes.values())}
    return EpochRecord(
        epoch=epoch,
        learning_rate=rate,
        losses=sums.means(),
        train_error=task.error(sums.counts),
        test_error=test.error,
        test_loss=test.loss,
        best_test_error=min(best, test.error),
        seconds=sums.seconds,
        images_per_second=sums.count / sums.seconds,
        extra={**test.scores, **{name: number for name, number in counted.items() if number}},
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """For the next step, in all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate
