"""What every head is made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from infopro.heads._resized_convolution import ResizedConv2d

__all__ = [
    "Decoder",
    "DecoderBuilder",
    "Head",
    "TaskHeadBuilder",
    "at_least_float32",
    "conv_norm_relu",
    "global_pool",
    "he_normal_",
    "norm_relu",
    "resize",
    "resized_convolution",
]

Shape = tuple[int, ...]
AnyHead = TypeVar("AnyHead", bound="Head")


class TaskHeadBuilder(Protocol):
    def __call__(self, *, feature_shape: Shape, image_shape: Shape, out_features: int) -> Head: ...


class DecoderBuilder(Protocol):
    def __call__(self, *, feature_shape: Shape, image_shape: Shape) -> Decoder: ...


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


class Decoder(Head):
    """An auxiliary net that draws the image; its last layer is a sigmoid, so that values lie in [0, 1]."""

    def __init__(self, *, prepare: nn.Module, layers: Iterable[nn.Module]):
        super().__init__(prepare=prepare, layers=[*layers, SigmoidInFloat32()])

    def logits(self, features: Tensor) -> Tensor:
        """What the sigmoid reads: a loss of logits is cheaper and stays exact where the sigmoid saturates."""
        values: Tensor = self.prepare(features)
        for layer in list(self.layers)[:-1]:
            values = layer(values)
        return values


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
    return norm_relu(convolution)


def norm_relu(convolution: nn.Conv2d) -> list[nn.Module]:
    return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()]


def global_pool() -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def resize(size: tuple[int, int], to: tuple[int, int]) -> nn.Module:
    """Bilinear, corners aligned as published; nothing where the size fits already (bilinear would copy)."""
    if size == to:
        return nn.Identity()
    return nn.Upsample(size=to, mode="bilinear", align_corners=True)


def resized_convolution(
    in_channels: int, out_channels: int, *, size: tuple[int, int], to: tuple[int, int]
) -> nn.Conv2d:
    """Convolution 3x3 of the map brought to another size."""
    if size == to:
        return nn.Conv2d(in_channels, out_channels, 3, padding=1)
    return ResizedConv2d(in_channels, out_channels, size=size, to=to)


def he_normal_(head: AnyHead) -> AnyHead:
    """Draws every convolution's weights as the paper does: N(0, sqrt(2 / (kernel² · out_channels)))."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return head
