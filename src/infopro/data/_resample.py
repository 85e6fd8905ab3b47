"""Images and masks at another size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["resize_images", "resize_masks"]

CHUNK = 2**28  # values at once: bounds the memory of the intermediate result


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [N, C, H, W] to uint8 [N, C, *size]: bilinear with antialiasing."""
    if tuple(images.shape[2:]) == size:
        return images
    number = max(1, CHUNK // max(1, images[:1].numel()))
    chunks = [
        F.interpolate(chunk.float(), size, mode="bilinear", antialias=True)
        .round_()
        .clamp_(0, 255)
        .to(torch.uint8)
        for chunk in torch.split(images, number)
    ]
    return torch.cat(chunks)


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [N, H, W] to uint8 [N, *size]: the value of the nearest pixel."""
    if tuple(masks.shape[1:]) == size:
        return masks
    return F.interpolate(masks[:, None], size, mode="nearest-exact")[:, 0]
