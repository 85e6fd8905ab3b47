"""The reconstruction net that InfoPro publishes for ImageNet."""

from __future__ import annotations

from torch import nn

from infopro.heads._base import (
    Decoder,
    DecoderBuilder,
    Shape,
    conv_norm_relu,
    he_normal_,
    norm_relu,
    resized_convolution,
)
from infopro.heads._features import ToFeatureMap, spatial_layout

__all__ = ["DECODERS", "imagenet_decoder"]


def imagenet_decoder(*, feature_shape: Shape, image_shape: Shape) -> Decoder:
    """Convolutions to 128, 32, 12 channels (each BN, ReLU) at growing size, to the image's, sigmoid.

    conv 1x1; up to a quarter of the image's side; conv 3x3; up to half; conv 3x3; up to the image; conv 3x3
    (Wang et al., ICLR 2021, their code; convolutions with bias). For 1024 channels at an eighth of the
    image's side it is their decoder for segmentation, too: each resizing then doubles the side. A map that
    is larger than the next size keeps its own. Resizing and the convolution behind it are one layer, see
    `ResizedConv2d`; an identity holds the place of each resizing, so that the numbers of the layers are the
    published ones.

    Shapes:
        features of any layout -> [N, C, H, W] of the image, in [0, 1], at least float32.
    """
    layout = spatial_layout(feature_shape, image_shape)
    image_channels, *image = image_shape
    quarter = _at_least(layout.size, image, part=4)
    half = _at_least(quarter, image, part=2)
    layers: list[nn.Module] = [
        *conv_norm_relu(layout.channels, 128, kernel=1, bias=True),
        nn.Identity(),
        *norm_relu(resized_convolution(128, 32, size=layout.size, to=quarter)),
        nn.Identity(),
        *norm_relu(resized_convolution(32, 12, size=quarter, to=half)),
        nn.Identity(),
        resized_convolution(12, image_channels, size=half, to=(image[0], image[1])),
    ]
    return he_normal_(Decoder(prepare=ToFeatureMap(layout), layers=layers))


def _at_least(size: tuple[int, int], image: list[int], *, part: int) -> tuple[int, int]:
    return max(size[0], image[0] // part), max(size[1], image[1] // part)


DECODERS: dict[str, DecoderBuilder] = {"imagenet": imagenet_decoder}
