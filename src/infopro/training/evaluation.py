"""The test error of a network: the caller's own `model.eval()`, no heads, no parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from infopro.data import ImageData, batches
from infopro.tasks import Task

__all__ = ["Evaluation", "autocast", "channels_last", "evaluate", "evaluate_data", "evaluation_mode"]

_BATCH = 1000


@dataclass(frozen=True)
class Evaluation:
    """Test error in % and mean loss over `num_images` images."""

    error: float
    loss: float
    num_images: int


@contextmanager
def evaluation_mode(*modules: nn.Module) -> Iterator[None]:
    """While open, everything is in eval mode; each module's own mode comes back afterwards."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


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
    found = batches(
        data.test,
        batch_size=_BATCH,
        mean=data.mean,
        std=data.std,
        augmentation=None,
        shuffle=False,
        seed=0,
        epoch=0,
        device=device,
        num_workers=num_workers,
    )
    with autocast(device, precision):
        return evaluate(model, task, channels_last(found))


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast | nullcontext[None]:
    """The forward pass in `precision`; nothing at all for float32."""
    return nullcontext() if precision == torch.float32 else torch.autocast(device.type, dtype=precision)


def channels_last(found: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Convolutions are about twice as fast on channels-last images, on CPUs and on GPUs."""
    for images, targets in found:
        yield images.contiguous(memory_format=torch.channels_last), targets
