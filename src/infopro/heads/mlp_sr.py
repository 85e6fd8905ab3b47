"""The recommended head of decoupled greedy learning."""

from __future__ import annotations

import math
from functools import partial

from torch import nn

from infopro.heads._base import Head, Shape, TaskHeadBuilder, conv_norm_relu
from infopro.heads._features import SpatialLayout, ToFeatureMap, spatial_layout

__all__ = ["DENSE_TASK_HEADS", "TASK_HEADS", "mlp_sr"]


def mlp_sr(*, feature_shape: Shape, image_shape: Shape, out_features: int, pooled_side: int = 2) -> Head:
    """DGL's "MLP-SR": a map reduced to a quarter of its side, 3 pointwise convolutions, a 3-layer perceptron.

    Adaptive average pool to ceil(side / 4), 3 x (conv 1x1 C -> C, BN, ReLU), adaptive pool to 2x2, flatten,
    3 x (linear 4C -> 4C, BN, ReLU), linear; convolutions and hidden linear layers without bias (Belilovsky,
    Eickenberg, Oyallon, ICML 2020, their code). One deviation: an axis of length 1 (vectors, token sequences
    without a grid) stays 1 where the published 2x2 pool would repeat it.

    The perceptron has 48 C² weights: 0.2 million at 64 channels, 201 million at 2048. Its BatchNorm needs
    at least 2 images per batch.

    For dense tasks it is built with a `pooled_side` of 1, as for a map of one position: 2x2 quarters have no
    meaning within a position, and a perceptron of width 4C would make 39 C² multiplications at each of them,
    several times a block of the network; this makes 6 C².

    Shapes:
        features of any layout -> [N, out_features].
    """
    layout = spatial_layout(feature_shape, image_shape)
    pooled = min(pooled_side, layout.height), min(pooled_side, layout.width)
    width = layout.channels * pooled[0] * pooled[1]
    layers = [*_pointwise(layout), nn.AdaptiveAvgPool2d(pooled), nn.Flatten(), *_perceptron(width)]
    return Head(prepare=ToFeatureMap(layout), layers=[*layers, nn.Linear(width, out_features)])


def _pointwise(layout: SpatialLayout) -> list[nn.Module]:
    reduced = math.ceil(layout.height / 4), math.ceil(layout.width / 4)
    layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(reduced)]
    for _ in range(3):
        layers += conv_norm_relu(layout.channels, layout.channels, kernel=1)
    return layers


def _perceptron(width: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
    return layers


TASK_HEADS: dict[str, TaskHeadBuilder] = {"mlp-sr": mlp_sr}
DENSE_TASK_HEADS: dict[str, TaskHeadBuilder] = {"mlp-sr": partial(mlp_sr, pooled_side=1)}
