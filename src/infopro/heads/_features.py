"""Where the grid lies in a feature tensor, found by rule, and the way from any tensor to a feature map.

Legend: N batch, C channels, H W rows and columns, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from infopro.errors import NotYetSupported

__all__ = ["SpatialLayout", "ToFeatureMap", "is_grid", "spatial_layout"]

MAX_PREFIX = 16  # class, distillation and register tokens: no published transformer has more


@dataclass(frozen=True)
class SpatialLayout:
    """How a feature tensor (without its batch dimension) reads as a map: channels x height x width."""

    kind: Literal["map", "channels_last", "tokens", "vector"]
    channels: int
    height: int
    width: int
    prefix: int = 0  # tokens before the grid: class, distillation, registers

    @property
    def size(self) -> tuple[int, int]:
        return self.height, self.width


def spatial_layout(feature_shape: Sequence[int], image_shape: Sequence[int]) -> SpatialLayout:
    """The layout of a feature tensor, from its shape and the image's; both without the batch dimension.

    Three dimensions are a map: [H, W, C] where that is the image seen at some stride and fits it better than
    [C, H, W] does, else [C, H, W]. Two are tokens [T, C], of which as few as possible are taken as prefix so
    that the rest is a grid of the image; without a grid they become a map of T x 1. One is a vector [C].

    Raises:
        NotYetSupported: no dimension, or more than three.

    Example:
        >>> spatial_layout((197, 768), (3, 224, 224))
        SpatialLayout(kind='tokens', channels=768, height=14, width=14, prefix=1)
        >>> spatial_layout((56, 56, 96), (3, 224, 224)).kind
        'channels_last'
    """
    match tuple(feature_shape):
        case (channels,):
            return SpatialLayout("vector", channels, 1, 1)
        case (num_tokens, channels):
            return _token_layout(num_tokens, channels, image_shape)
        case (first, middle, last):
            return _map_layout(first, middle, last, image_shape)
    raise NotYetSupported(
        "no auxiliary net reads features of this shape",
        got=list(feature_shape),
        allowed="[C], [T, C], [C, H, W] or [H, W, C], batch dimension left out",
        remedy="cut the network after another block",
    )


class ToFeatureMap(nn.Module):
    """Turns a batch of features of a known layout into [N, C, H, W].

    Prefix tokens have no place in the grid; their mean is added to every position (the "add" readout of DPT,
    Ranftl et al. 2021), so that a class token, too, is trained by the local loss.
    """

    def __init__(self, layout: SpatialLayout):
        super().__init__()
        self.layout = layout

    def forward(self, features: Tensor) -> Tensor:
        match self.layout.kind:
            case "map":
                return features
            case "channels_last":
                return features.permute(0, 3, 1, 2)
            case "vector":
                return features[:, :, None, None]
            case "tokens":
                return self._grid(features)

    def _grid(self, tokens_NTC: Tensor) -> Tensor:
        prefix = self.layout.prefix
        grid_NTC = tokens_NTC[:, prefix:]
        if prefix:
            grid_NTC = grid_NTC + tokens_NTC[:, :prefix].mean(dim=1, keepdim=True)
        return grid_NTC.transpose(1, 2).reshape(len(grid_NTC), -1, *self.layout.size)

    def extra_repr(self) -> str:
        return str(self.layout)


def _map_layout(first: int, middle: int, last: int, image_shape: Sequence[int]) -> SpatialLayout:
    channels_first = SpatialLayout("map", first, middle, last)
    channels_last = SpatialLayout("channels_last", last, first, middle)
    image = _image_size(image_shape)
    if image is None or not is_grid(channels_last.size, image):
        return channels_first
    closer = _misfit(channels_last.size, image) < _misfit(channels_first.size, image)
    return channels_last if closer else channels_first


def _token_layout(num_tokens: int, channels: int, image_shape: Sequence[int]) -> SpatialLayout:
    image = _image_size(image_shape)
    most = min(MAX_PREFIX, num_tokens // 2)
    for prefix in range(most + 1) if image else ():
        grid = _grid_of(num_tokens - prefix, image)
        if grid:
            return SpatialLayout("tokens", channels, *grid, prefix)
    return SpatialLayout("tokens", channels, num_tokens, 1)


def _image_size(image_shape: Sequence[int]) -> tuple[int, int] | None:
    return (image_shape[1], image_shape[2]) if len(image_shape) == 3 else None


def _grid_of(num_positions: int, image: tuple[int, int] | None) -> tuple[int, int] | None:
    """The factorisation of a number of positions that is the image seen at some stride, if there is one."""
    if image is None:
        return None
    pairs = [(h, num_positions // h) for h in range(1, num_positions + 1) if num_positions % h == 0]
    fitting = [pair for pair in pairs if is_grid(pair, image)]
    return min(fitting, key=lambda pair: _misfit(pair, image), default=None)


def _misfit(grid: tuple[int, int], image: tuple[int, int]) -> tuple[bool, float]:
    """Sort key: first whether a stride explains the grid, then how far its aspect is from the image's."""
    aspect = math.log(grid[0] * image[1]) - math.log(grid[1] * image[0])
    return not is_grid(grid, image), round(abs(aspect), 9)


def is_grid(grid: tuple[int, int], image: tuple[int, int]) -> bool:
    """Whether a map of this size is the image seen at some stride."""
    (h, w), (height, width) = grid, image
    if h * width == w * height and h <= height:
        return True
    strides = range(1, max(image) + 1)
    floor = any((height // s, width // s) == grid for s in strides)
    return floor or any((-(-height // s), -(-width // s)) == grid for s in strides)
