"""The test error of a network: the caller's own `model.eval()`, no heads, no parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from infopro.tasks import Task

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """Test error in % and mean loss over `num_images` images."""

    error: float
    loss: float
    num_images: int


@torch.no_grad()
def evaluate(model: nn.Module, task: Task, batches: Iterable[tuple[Tensor, Tensor]]) -> Evaluation:
    """Run the network in eval mode over all batches; its train/eval mode is restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    wrong, loss, count = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64), 0
    for images, targets in batches:
        output = model(images)
        wrong = wrong.to(images.device) + task.errors(output, targets)
        loss = loss.to(images.device) + task.loss(output, targets).double() * len(images)
        count += len(images)
    for module, mode in modes:
        module.training = mode
    return Evaluation(100.0 * wrong.item() / count, loss.item() / count, count)
