"""What a loss needs that sees only one rank's part of the batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from infopro.engines.collectives import gather_rows, sizes_of_parts
from infopro.heads import at_least_float32
from infopro.local import LocalStage

__all__ = ["gather_contrast", "gradient_scale", "scaled_gradient"]


def gradient_scale(own: int, whole: int, ranks: int) -> float:
    """What a rank's loss is multiplied by, so that the mean over the ranks is the mean over all images.

    Args:
        own: images of this rank; at least one.
        whole: images of all ranks.
        ranks: how many there are.

    Example:
        >>> gradient_scale(5, 8, 2), gradient_scale(3, 8, 2), gradient_scale(4, 8, 2)
        (1.25, 0.75, 1.0)
    """
    return own * ranks / whole


def scaled_gradient(loss: Tensor, scale: float) -> Tensor:
    """The loss with its value as it is and its gradient times `scale`: it is reported and differentiated.

    Example:
        >>> import torch
        >>> loss = torch.tensor(2.0, requires_grad=True)
        >>> scaled_gradient(loss, 0.5).backward()
        >>> loss.grad
        tensor(0.5000)
    """
    if scale == 1.0:
        return loss
    scaled: Tensor = _ScaledGradient.apply(loss, scale)
    return scaled


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.scale, None


def gather_contrast(stage: LocalStage, group: dist.ProcessGroup) -> None:
    """Let the stage's loss compare the images of all ranks, where it compares the images of a batch.

    Every rank then computes the loss of the whole batch. Its gradient for one rank's images arrives once from
    each rank, weighted with that rank's `scale`: with the mean over the ranks, and scales whose mean is 1,
    that is the gradient of one rank with the whole batch, for unequal parts as well.

    The sizes of the parts are exchanged in every step, which waits for the device.
    """

    def gather(rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        sizes = sizes_of_parts(rows, group)
        # the gradients are summed in the type that is sent
        return gather_rows(at_least_float32(rows), sizes, group), gather_rows(targets, sizes, group)

    stage.objective.gather = gather
