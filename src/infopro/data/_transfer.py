"""From the host to the device without a halt."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["to_device"]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The same values on `device`; the host does not wait for what a GPU is still computing.

    From ordinary memory a copy to a GPU waits for all its work, once for every batch and draw.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # its memory is used again only after the copy: torch keeps count
    return tensor.to(device, non_blocking=True)
