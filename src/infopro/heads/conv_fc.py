"""The six task heads that InfoPro publishes for small images: <convolutions>c<linear layers>f."""

from __future__ import annotations

from functools import partial

from torch import nn

from infopro.heads._base import Head, Shape, TaskHeadBuilder, conv_norm_relu, global_pool, he_normal_
from infopro.heads._features import SpatialLayout, ToFeatureMap, spatial_layout

__all__ = ["TASK_HEADS", "conv_fc"]

HIDDEN = 128  # width of the hidden linear layers, as published
LARGEST_MAP = 8  # side of the map that the published 64-channel head sees


def conv_fc(
    *, num_convs: int, num_linears: int, feature_shape: Shape, image_shape: Shape, out_features: int
) -> Head:
    """`num_convs` x (conv 3x3, BN, ReLU), global average pool, `num_linears` linear layers, ReLU between.

    Published (Wang et al., ICLR 2021, their code) for C = 16, 32, 64: width min(2C, 64), the first
    convolution with stride 2, but stride 1 at C = 64. The rule here gives exactly those, and goes on from
    there: above 64 channels the width is min(C, 128) and the stride is 2 while the map is larger than 8, so
    that the head of a 2048-channel map has 2.4 million weights in its convolution rather than 38.

    Shapes:
        features of any layout -> [N, out_features].
    """
    layout = spatial_layout(feature_shape, image_shape)
    layers = _convolutions(layout, num_convs)
    width = _width(layout.channels) if num_convs else layout.channels
    layers += [*global_pool(), *_linears(width, num_linears, out_features)]
    return he_normal_(Head(prepare=ToFeatureMap(layout), layers=layers))


def _convolutions(layout: SpatialLayout, num_convs: int) -> list[nn.Module]:
    width = _width(layout.channels)
    layers: list[nn.Module] = []
    for index in range(num_convs):
        channels, stride = (width, (1, 1)) if index else (layout.channels, _stride(layout))
        layers += conv_norm_relu(channels, width, kernel=3, stride=stride)
    return layers


def _width(channels: int) -> int:
    return min(2 * channels, 64) if channels <= 64 else min(channels, 128)


def _stride(layout: SpatialLayout) -> tuple[int, int]:
    if layout.channels == 64:
        return 1, 1
    smallest = 1 if layout.channels < 64 else LARGEST_MAP
    return 2 if layout.height > smallest else 1, 2 if layout.width > smallest else 1


def _linears(width: int, num_linears: int, out_features: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(num_linears - 1):
        layers += [nn.Linear(width, HIDDEN), nn.ReLU()]
        width = HIDDEN
    return [*layers, nn.Linear(width, out_features)]


TASK_HEADS: dict[str, TaskHeadBuilder] = {
    f"{convs}c{linears}f": partial(conv_fc, num_convs=convs, num_linears=linears)
    for convs, linears in ((0, 1), (0, 2), (1, 1), (1, 2), (1, 3), (2, 2))
}
