"""What every head is made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

__all__ = [
    "DecoderBuilder",
    "Head",
    "SigmoidInFloat32",
    "TaskHeadBuilder",
    "at_least_float32",
    "conv_norm_relu",
    "global_pool",
    "he_normal_",
    "resize",
]

Shape = tuple[int, ...]


class TaskHeadBuilder(Protocol):
    def __call__(self, *, feature_shape: Shape, image_shape: Shape, out_features: int) -> Head: ...


class DecoderBuilder(Protocol):
    def __call__(self, *, feature_shape: Shape, image_shape: Shape) -> Head: ...


class Head(nn.Module):
    """An auxiliary net: `prepare` brings features of any layout to [N, C, H, W], `layers` is the net.

    The parameters are named `layers.N....` with the published code's own N.
    """

    def __init__(self, *, prepare: nn.Module, layers: Iterable[nn.Module]):
        super().__init__()
        self.prepare = prepare
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.layers(self.prepare(features))
        return output


class SigmoidInFloat32(nn.Module):
    """Sigmoid in at least float32: in bfloat16 it is exactly 1 from 6.3 on, with a gradient of 0."""

    def forward(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(at_least_float32(logits))


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor itself, or a float32 copy if its floating type is narrower."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def conv_norm_relu(
    in_channels: int, out_channels: int, *, kernel: int, stride: tuple[int, int] = (1, 1), bias: bool = False
) -> list[nn.Module]:
    """Convolution that keeps the map's size (but for the stride), BatchNorm, ReLU."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, bias=bias)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]


def global_pool() -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def resize(layout_size: tuple[int, int], to: tuple[int, int]) -> nn.Module:
    """Bilinear, corners aligned as published; nothing where the size fits already (bilinear would copy)."""
    if layout_size == to:
        return nn.Identity()
    return nn.Upsample(size=to, mode="bilinear", align_corners=True)


def he_normal_(head: Head) -> Head:
    """Draws every convolution's weights as the paper does: N(0, sqrt(2 / (kernel² · out_channels)))."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return head
