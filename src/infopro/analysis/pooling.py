"""One rule for features of any layout: a map [C, h, w], averaged down until it is small enough."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from infopro.heads import SpatialLayout, ToFeatureMap, spatial_layout

__all__ = ["PooledMap", "layout_of", "pooled", "pooled_size"]


def pooled_size(*, channels: int, size: tuple[int, int], limit: int) -> tuple[int, int]:
    """Height and width of the largest map of the same aspect with at most `limit` numbers.

    For a square map the largest side with channels x side² <= limit; one number per channel always stays.

    Example:
        >>> pooled_size(channels=16, size=(32, 32), limit=1024)
        (8, 8)
        >>> pooled_size(channels=2048, size=(7, 7), limit=1024)
        (1, 1)
    """
    height, width = size
    rows = math.isqrt(height * limit // (channels * width))
    columns = math.isqrt(width * limit // (channels * height))
    return min(height, max(rows, 1)), min(width, max(columns, 1))


class PooledMap(nn.Module):
    """Features of any layout -> [N, C, h, w] with at most `limit` numbers each: adaptive average pooling.

    Args:
        feature_shape: without the batch dimension; read as `heads.spatial_layout` reads it.
        image_shape: [C, H, W] of the network's input.
    """

    def __init__(self, feature_shape: Sequence[int], image_shape: Sequence[int], *, limit: int):
        super().__init__()
        self.layout = layout_of(feature_shape, image_shape)
        self.to_map = ToFeatureMap(self.layout)
        self.size = pooled_size(channels=self.layout.channels, size=self.layout.size, limit=limit)

    @property
    def shape(self) -> tuple[int, int, int]:
        """[C, h, w]."""
        return self.layout.channels, *self.size

    def forward(self, features: Tensor) -> Tensor:
        return pooled(self.to_map(features), self.size)


def pooled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Adaptive average pooling to `size`; nothing where the map has it.

    Shapes:
        [N, C, h, w] -> [N, C, *size].
    """
    return maps if maps.shape[2:] == size else F.adaptive_avg_pool2d(maps, size)


def layout_of(feature_shape: Sequence[int], image_shape: Sequence[int]) -> SpatialLayout:
    """`spatial_layout`, and an image's own layout is the image's."""
    if tuple(feature_shape) == tuple(image_shape):
        channels, height, width = image_shape
        return SpatialLayout("map", channels, height, width)
    return spatial_layout(feature_shape, image_shape)
