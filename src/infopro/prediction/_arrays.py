"""Photos as arrays to a batch as a network takes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from infopro.data import normalize
from infopro.errors import BadInput
from infopro.tasks import Task

__all__ = ["as_batch"]


def as_batch(images: Sequence[NDArray[np.uint8]], model: nn.Module, task: Task) -> Tensor:
    """uint8 [H, W, C], all of one size -> float32 [N, C, H, W], normalised, on the network's device."""
    for image in images:
        if image.ndim != 3 or image.dtype != np.uint8 or not image.size:
            raise BadInput(
                "an image has the wrong type or shape",
                got=f"{image.dtype} {list(image.shape)}",
                allowed="uint8 [H, W, channels]",
            )
    tensors_NHWC = torch.from_numpy(np.stack(images)).to(_device(model))
    channels = tensors_NHWC.shape[-1]
    if len(task.mean) not in (1, channels):
        raise BadInput(
            "images have other channels than the task's mean", got=channels, allowed=str(len(task.mean))
        )
    mean, std = (values.expand(channels).tolist() for values in (task.mean, task.std))
    # in memory they stay channels last, which convolutions prefer
    return normalize(tensors_NHWC.permute(0, 3, 1, 2), mean, std)


def _device(model: nn.Module) -> torch.device:
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device
