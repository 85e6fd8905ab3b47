"""The test error of a network: the caller's own `model.eval()`, no heads, no parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from infopro.data import ImageData
from infopro.engines import Engine
from infopro.tasks import Task
from infopro.training.averaging import WeightAverages, in_place
from infopro.training.reading import Reading, evaluation_batch, padded, plain_batches

__all__ = [
    "Evaluation",
    "Tally",
    "autocast",
    "evaluate",
    "evaluate_data",
    "evaluate_through",
    "evaluation_mode",
    "evaluation_of",
    "kept_modes",
]


NAN = float("nan")


@dataclass(frozen=True)
class Evaluation:
    """What a network is worth on `num_images` images."""

    error: float  # the task's, in %
    loss: float  # mean
    num_images: int
    scores: Mapping[str, Any] = field(default_factory=dict)  # the task's further metrics


class Tally:
    """Counts and losses of batches, added up where they are made; no batch waits for a number."""

    def __init__(self, task: Task):
        self._task = task
        self._sums: Tensor | None = None

    def add(self, output: Any, targets: Tensor) -> None:
        """A batch's network output."""
        loss = self._task.loss(output, targets).double() * len(targets)
        found = torch.cat([loss[None], self._task.counts(output, targets)])
        self._sums = found if self._sums is None else self._sums + found

    def values(self) -> list[float]:
        """The loss and the counts; zeros where nothing was added. Waits for the device."""
        return [0.0] * (1 + self._task.num_counts) if self._sums is None else self._sums.tolist()


def evaluation_of(task: Task, values: Sequence[float], num_images: int) -> Evaluation:
    """What the values of a `Tally`, or sums of such, mean."""
    loss, *counts = values
    return Evaluation(task.error(counts), loss / num_images, num_images, task.scores(counts))


@contextmanager
def kept_modes(*modules: nn.Module) -> Iterator[None]:
    """Whatever mode modules are put into while open, each one's own comes back afterwards."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def evaluation_mode(*modules: nn.Module) -> Iterator[None]:
    """While open, everything is in eval mode; each module's own mode comes back afterwards."""
    with kept_modes(*modules):
        for module in modules:
            module.eval()
        yield


@torch.no_grad()
def evaluate(model: nn.Module, task: Task, batches: Iterable[tuple[Tensor, Tensor]]) -> Evaluation:
    """Run the network in eval mode over all batches; its train/eval mode is restored afterwards."""
    tally, count = Tally(task), 0
    with evaluation_mode(model):
        for images, targets in batches:
            tally.add(model(images), targets)
            count += len(images)
    return evaluation_of(task, tally.values(), count)


def evaluate_data(
    model: nn.Module,
    task: Task,
    data: ImageData,
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    num_workers: int = 0,
) -> Evaluation:
    """Evaluate on `data.test`, in order and without augmentation."""
    size = evaluation_batch(data.test, data.image_shape)
    found = plain_batches(data.test, data, batch_size=size, device=device, num_workers=num_workers)
    with autocast(device, precision):
        return evaluate(model, task, padded(found, data))


@torch.no_grad()
def evaluate_through(
    engine: Engine,
    reading: Reading,
    *,
    epoch: int,
    precision: torch.dtype,
    averages: WeightAverages | None = None,
) -> Evaluation:
    """Test the network by the engine that trains it; a result counts in the process that writes only.

    With `averages` it is those that are tested.
    Where the engine stops in the middle, nothing was found out: `engine.stopped` says so.
    """
    local, phase = engine.local, reading.test_phase(epoch)
    tally = Tally(local.task)
    with in_place(averages), evaluation_mode(local), autocast(reading.device, precision):
        for work in engine.feed(phase, lambda: reading.test_batches(phase)):
            output = engine.predict(work)
            if engine.is_last and work.size:
                tally.add(output, work.batch.targets)
    values, count = engine.sum(tally.values()), sum(phase.totals)
    if engine.stopped or not engine.is_last:
        return Evaluation(NAN, NAN, count)
    return evaluation_of(local.task, values, count)


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast | nullcontext[None]:
    """The forward pass in `precision`; nothing at all for float32."""
    return nullcontext() if precision == torch.float32 else torch.autocast(device.type, dtype=precision)
