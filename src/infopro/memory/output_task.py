"""The task that a plan assumes where none is given: cross-entropy of whatever a network predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from infopro.errors import BadInput
from infopro.heads import at_least_float32
from infopro.tasks import Classification, Segmentation, Task

__all__ = ["OutputTask", "task_for"]


class OutputTask(Task):
    """Cross-entropy of every prediction in a network's output: per image, per pixel [N, C, H, W], per
    token [N, T, C].

    It has the shapes and the cost of training, and is for plans only: every target is class 0.
    """

    def __init__(self, num_classes: int):
        super().__init__(out_features=num_classes, mean=(0.0,), std=(1.0,))

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        losses = []
        for logits in _predictions(output):
            classes_second = logits.transpose(1, 2) if logits.dim() == 3 else logits
            shape = (classes_second.shape[0], *classes_second.shape[2:])
            zeros = torch.zeros(shape, dtype=torch.int64, device=logits.device)
            losses.append(F.cross_entropy(at_least_float32(classes_second), zeros))
        return torch.stack(losses).sum()

    def logits(self, output: Any) -> Tensor:
        return _predictions(output)[0]

    num_counts = 1

    def counts(self, output: Any, targets: Tensor) -> Tensor:
        return (self.logits(output).argmax(dim=1) != 0).sum(dtype=torch.float64)[None]

    def error(self, counts: Sequence[float]) -> float:
        return float("nan")

    def check(self, images: Tensor, targets: Tensor) -> None:
        """Every batch will do: it is not trained on."""

    def check_output(self, output: Any) -> None:
        _predictions(output)


def task_for(output: Any, images: Tensor) -> Task:
    """The task whose training a network with this output is most likely meant for.

    Logits per image are classified. Maps made of images are segmented: the first is the prediction, the
    others add 0.4 of their loss, as auxiliary heads do.
    """
    predictions = _predictions(output)
    first = predictions[0]
    if first.dim() == 2 and isinstance(output, Tensor):
        return Classification(num_classes=first.shape[1])
    if images.dim() == 4 and all(map_.dim() == 4 for map_ in predictions):
        return Segmentation(num_classes=first.shape[1], mean=(0.0,), std=(1.0,))
    return OutputTask(first.shape[2] if first.dim() == 3 else first.shape[1])


def _predictions(output: Any) -> list[Tensor]:
    found = [
        t for t in tree_leaves(output) if isinstance(t, Tensor) and t.is_floating_point() and t.dim() >= 2
    ]
    if not found:
        raise BadInput(
            "the network's output holds no prediction",
            got=type(output).__name__,
            allowed="floating-point tensors [N, C, ...] or [N, T, C]",
            remedy="pass task=...",
        )
    return found
