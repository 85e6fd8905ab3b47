"""The test error of a network: the caller's own `model.eval()`, no heads, no parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from infopro.data import ImageData
from infopro.engines import Engine
from infopro.tasks import Task
from infopro.training.reading import EVALUATION_BATCH, Reading, plain_batches

__all__ = [
    "Evaluation",
    "autocast",
    "evaluate",
    "evaluate_data",
    "evaluate_through",
    "evaluation_mode",
    "kept_modes",
]


@dataclass(frozen=True)
class Evaluation:
    """Test error in % and mean loss over `num_images` images."""

    error: float
    loss: float
    num_images: int


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
    wrong, loss, count = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64), 0
    with evaluation_mode(model):
        for images, targets in batches:
            output = model(images)
            wrong = wrong.to(images.device) + task.errors(output, targets)
            loss = loss.to(images.device) + task.loss(output, targets).double() * len(images)
            count += len(images)
    return Evaluation(100.0 * wrong.item() / count, loss.item() / count, count)


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
    found = plain_batches(
        data.test, data, batch_size=EVALUATION_BATCH, device=device, num_workers=num_workers
    )
    with autocast(device, precision):
        return evaluate(model, task, found)


@torch.no_grad()
def evaluate_through(engine: Engine, reading: Reading, *, epoch: int, precision: torch.dtype) -> Evaluation:
    """Test the network by the engine that trains it; a result counts in the process that writes only."""
    local, phase = engine.local, reading.test_phase(epoch)
    wrong, loss = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    with evaluation_mode(local), autocast(reading.device, precision):
        for work in engine.feed(phase, lambda: reading.test_batches(phase)):
            output = engine.predict(work)
            if engine.is_last and work.size:
                targets = work.batch.targets
                wrong = wrong.to(targets.device) + local.task.errors(output, targets)
                loss = loss.to(targets.device) + local.task.loss(output, targets).double() * work.size
    count = sum(phase.totals)
    all_wrong, all_loss = engine.sum([wrong.item(), loss.item()])
    return Evaluation(100.0 * all_wrong / count, all_loss / count, count)


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast | nullcontext[None]:
    """The forward pass in `precision`; nothing at all for float32."""
    return nullcontext() if precision == torch.float32 else torch.autocast(device.type, dtype=precision)
