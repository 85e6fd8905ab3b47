"""A reconstruction net that computes at half the image's side: a quarter of the cost where that dominates."""

from __future__ import annotations

from torch import nn

from infopro.heads._base import (
    Decoder,
    DecoderBuilder,
    Shape,
    he_normal_,
    norm_relu,
    resize,
    resized_convolution,
)
from infopro.heads._features import ToFeatureMap, spatial_layout

__all__ = ["DECODERS", "half_decoder"]


def half_decoder(*, feature_shape: Shape, image_shape: Shape) -> Decoder:
    """The CIFAR decoder at half the image's side; its last, few-channel map is enlarged, then the sigmoid.

    Not in the paper, whose decoders convolve at the image's full size. On a CPU those cost more than a small
    network itself.

    Shapes:
        features of any layout -> [N, C, H, W] of the image, in [0, 1], at least float32.
    """
    layout = spatial_layout(feature_shape, image_shape)
    image_channels, height, width = image_shape
    half = (-(-height // 2), -(-width // 2))
    first = resized_convolution(layout.channels, 12, size=layout.size, to=half)
    layers = [*norm_relu(first), nn.Conv2d(12, image_channels, 3, padding=1), resize(half, (height, width))]
    return he_normal_(Decoder(prepare=ToFeatureMap(layout), layers=layers))


DECODERS: dict[str, DecoderBuilder] = {"half": half_decoder}
