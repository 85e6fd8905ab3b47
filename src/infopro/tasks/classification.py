"""One label per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infopro.errors import BadConfiguration, BadInput
from infopro.heads import at_least_float32
from infopro.tasks._base import Task
from infopro.tasks._checks import first, image_problems, raise_all

__all__ = ["Classification"]


class Classification(Task):
    """Cross-entropy against integer labels.

    Args:
        num_classes: labels are 0 .. num_classes - 1.
        mean: per image channel, how the input was normalised: (image in [0, 1] - mean) / std.
        std: per image channel.
        auxiliary_weight: of each further tensor of logits that a network returns while it trains (0.3 as in
            GoogLeNet, Szegedy et al. 2015).

    Raises:
        BadConfiguration: fewer than 1 class, a negative weight, a `std` that is not positive.

    Example:
        >>> import torch
        >>> from infopro.tasks import Classification
        >>> task = Classification(num_classes=3)
        >>> output = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
        >>> task.error(task.counts(output, torch.tensor([0, 1])).tolist())
        50.0
    """

    num_counts = 2

    def __init__(
        self,
        *,
        num_classes: int,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        auxiliary_weight: float = 0.3,
    ):
        if num_classes < 1:
            raise BadConfiguration("num_classes is not positive", got=num_classes, allowed="1 or more")
        if auxiliary_weight < 0:
            raise BadConfiguration("auxiliary_weight is negative", got=auxiliary_weight, allowed="0 or more")
        super().__init__(out_features=num_classes, mean=mean, std=std)
        self.num_classes = num_classes
        self.auxiliary_weight = auxiliary_weight

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        """Mean cross-entropy of the logits, plus that of auxiliary logits times `auxiliary_weight`.

        Shapes:
            output holding [N, num_classes], targets [N] int64 -> scalar, at least float32.
        """
        main, *auxiliary = _all_logits(output)
        loss = F.cross_entropy(at_least_float32(main), targets)
        for logits in auxiliary:
            loss = loss + self.auxiliary_weight * F.cross_entropy(at_least_float32(logits), targets)
        return loss

    def logits(self, output: Any) -> Tensor:
        """The network's prediction [N, num_classes], of a tensor or of any structure that networks return.

        A tensor is itself; of a tuple or list the first tensor (those of the same shape after it are
        auxiliary logits, as of GoogLeNet and Inception); `.logits` of an object; "logits" or "out" of a dict.

        Raises:
            BadInput: none of these.
        """
        return _all_logits(output)[0]

    def counts(self, output: Any, targets: Tensor) -> Tensor:
        """How many images have another label than the largest logit says, and how many images there are."""
        wrong = (self.logits(output).argmax(dim=1) != targets).sum(dtype=torch.float64)
        return torch.stack([wrong, torch.full_like(wrong, len(targets))])

    def error(self, counts: Sequence[float]) -> float:
        """The share of wrong images, in %."""
        wrong, images = counts
        return 100.0 * wrong / images

    def check(self, images: Tensor, targets: Tensor) -> None:
        """Raises BadInput, all problems in one message, where a batch cannot be trained on.

        Images: floating point, a batch dimension, finite. Targets: one int64 label per image, in range.
        """
        raise_all([*image_problems(images), *_target_problems(images, targets, self.num_classes)])

    def check_output(self, output: Any) -> None:
        """Raises BadInput unless the network predicts [N, num_classes]."""
        logits = self.logits(output)
        if logits.ndim != 2 or logits.shape[1] != self.num_classes:
            raise BadInput(
                "the network's output does not fit the task",
                got=f"shape {list(logits.shape)}",
                allowed=f"[N, {self.num_classes}]",
                remedy="build the network with as many outputs as the task has classes",
            )


def _all_logits(output: Any) -> list[Tensor]:
    """The logits, then the auxiliary ones."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Sequence) and output and isinstance(output[0], Tensor):
        first = output[0]
        return [first, *(o for o in output[1:] if isinstance(o, Tensor) and o.shape == first.shape)]
    for name in ("logits", "out"):
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, Tensor):
            return [found]
    raise BadInput(
        "no logits in the network's output",
        got=type(output).__name__,
        allowed='a tensor, a tuple that begins with one, .logits, or a dict with "logits" or "out"',
        remedy="wrap the network so that it returns its logits",
    )


def _target_problems(images: Tensor, targets: Tensor, num_classes: int) -> list[BadInput]:
    if targets.dtype != torch.int64:
        return [BadInput("labels are not int64", got=targets.dtype, remedy="call labels.long()")]
    if targets.shape != images.shape[:1]:
        shapes = f"shape {list(targets.shape)} for images {list(images.shape)}"
        return [BadInput("labels do not pair with images", got=shapes, allowed="one label per image, [N]")]
    outside = (targets < 0) | (targets >= num_classes)
    if not outside.any():
        return []
    index = first(outside)
    return [
        BadInput(
            "a label is out of range",
            got=f"{targets[index].item()} at index {index}",
            allowed=f"0 to {num_classes - 1}",
            remedy=f"correct the labels, or pass num_classes={int(targets.max()) + 1}"
            if targets[index] > 0
            else "number the classes from 0",
        )
    ]
