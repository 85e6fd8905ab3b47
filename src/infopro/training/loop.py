"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from infopro.data import Augmentation, ImageData, batches, num_batches
from infopro.errors import InfoProError
from infopro.local import LocalModel
from infopro.training.evaluation import autocast, channels_last, evaluate_data
from infopro.training.schedules import Schedule
from infopro.types import EpochRecord, StepOutput

__all__ = ["Diverged", "train"]


class Diverged(InfoProError):
    """A loss became infinite or not a number; the message names the module."""


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
    first_epoch: int = 1,
    best_test_error: float = 100.0,
    num_workers: int = 0,
    on_step: Callable[[int, int], object] | None = None,
    on_epoch: Callable[[EpochRecord], object] | None = None,
) -> list[EpochRecord]:
    """Train `local` on `data.train`, testing the network after every epoch.

    Order, augmentation and dropout depend on (seed, epoch, step) alone, so that a run that starts at
    `first_epoch` with the weights and optimizer state of the epoch before goes on bit for bit like the
    undisturbed one. The first batch is checked, see `LocalModel.check`.

    Args:
        precision: float32, or bfloat16 for autocast.
        on_step: called with (epoch, number of steps done in it).
        on_epoch: called with the record of each finished epoch.

    Raises:
        BadInput: a first batch that cannot be trained on.
        Diverged: an epoch in which a loss was not finite.
    """
    records = []
    steps = num_batches(data.train, batch_size=batch_size)
    for epoch in range(first_epoch, epochs + 1):
        local.train()
        totals, started = _Totals(), time.perf_counter()
        for step, (images, targets) in enumerate(_epoch(data, epoch, batch_size, seed, device, num_workers)):
            torch.manual_seed(_step_seed(seed, epoch, step))
            rate = _set_learning_rate(optimizer, schedule(epoch, step / steps))
            optimizer.zero_grad(set_to_none=True)
            with autocast(device, precision):
                out = local.backward(images, targets)
            optimizer.step()
            totals.add(out, targets, local)
            if on_step is not None:
                on_step(epoch, step + 1)
        losses = totals.losses()  # waits for the device
        seconds = time.perf_counter() - started
        _refuse_divergence(losses, epoch)
        test = evaluate_data(
            local.model, local.task, data, device=device, precision=precision, num_workers=num_workers
        )
        best_test_error = min(best_test_error, test.error)
        record = EpochRecord(
            epoch=epoch,
            learning_rate=rate,
            losses=losses,
            train_error=totals.error(),
            test_error=test.error,
            test_loss=test.loss,
            best_test_error=best_test_error,
            seconds=seconds,
            images_per_second=totals.count / seconds,
        )
        records.append(record)
        if on_epoch is not None:
            on_epoch(record)
    return records


class _Totals:
    """Sums over an epoch, kept on the device: no step waits for a number."""

    def __init__(self) -> None:
        self.sums: list[dict[str, Tensor]] = []
        self.wrong: Tensor | float = 0.0
        self.count = 0

    def add(self, out: StepOutput, targets: Tensor, local: LocalModel) -> None:
        size = len(targets)
        scaled = [{name: value.double() * size for name, value in losses.items()} for losses in out.losses]
        if self.sums:
            scaled = [{n: old[n] + new[n] for n in new} for old, new in zip(self.sums, scaled, strict=True)]
        self.sums = scaled
        self.wrong = self.wrong + local.task.errors(out.logits, targets)
        self.count += size

    def losses(self) -> tuple[dict[str, float], ...]:
        return tuple(
            {name: float(value) / self.count for name, value in losses.items()} for losses in self.sums
        )

    def error(self) -> float:
        return 100.0 * float(self.wrong) / self.count


def _epoch(
    data: ImageData, epoch: int, batch_size: int, seed: int, device: torch.device, num_workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    augmentation: Augmentation = data.augmentation
    found = batches(
        data.train,
        batch_size=batch_size,
        mean=data.mean,
        std=data.std,
        augmentation=augmentation,
        shuffle=True,
        seed=seed,
        epoch=epoch,
        device=device,
        num_workers=num_workers,
    )
    return channels_last(found)


def _step_seed(seed: int, epoch: int, step: int) -> int:
    return ((seed * 1_000_003 + epoch) * 1_000_003 + step) % 2**63  # torch takes 64 bits


def _set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def _refuse_divergence(losses: tuple[dict[str, float], ...], epoch: int) -> None:
    for index, values in enumerate(losses):
        for name, value in values.items():
            if not abs(value) < float("inf"):
                raise Diverged(
                    f"the {name} loss of module {index + 1} is not finite in epoch {epoch}",
                    got=value,
                    remedy="lower --learning-rate or that module's weight, with another --output",
                )
