"""What every task asks of the images of a batch, and how it tells what is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from infopro.errors import BadInput

__all__ = ["first", "image_problems", "raise_all"]


def image_problems(images: Tensor) -> list[BadInput]:
    """What keeps images from being trained on: their type, no batch dimension, values that are not finite."""
    if images.dtype == torch.uint8:
        return [BadInput("images are not floating point", got=images.dtype, remedy="divide them by 255")]
    if images.ndim < 2 or not images.numel():
        return [BadInput("images form no batch", got=f"shape {list(images.shape)}", allowed="[N, C, H, W]")]
    finite = images.isfinite().flatten(1).all(dim=1)
    if finite.all():
        return []
    return [BadInput("images are not finite", got=f"NaN or infinity in image {first(~finite)}")]


def raise_all(problems: Sequence[BadInput]) -> None:
    """Raises the problem, or all of them in one message; nothing where there is none."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise BadInput(f"{len(problems)} problems in a batch: " + "; also ".join(map(str, problems)))


def first(mask: Tensor) -> int:
    """The index along the first dimension of the first element that is true."""
    return int(mask.nonzero()[0, 0])
