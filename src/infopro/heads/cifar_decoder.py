"""The reconstruction net that InfoPro publishes for small images."""

from __future__ import annotations

from torch import nn

from infopro.heads._base import Decoder, DecoderBuilder, Shape, he_normal_, norm_relu, resized_convolution
from infopro.heads._features import ToFeatureMap, spatial_layout

__all__ = ["DECODERS", "cifar_decoder"]


def cifar_decoder(*, feature_shape: Shape, image_shape: Shape) -> Decoder:
    """Bilinear to the image's size, conv 3x3 to 12, BN, ReLU, conv 3x3 to the image's channels, sigmoid.

    Wang et al., ICLR 2021, their code; convolutions with bias. Resizing and first convolution are one layer,
    see `ResizedConv2d`; the numbers of the layers are the published ones.

    Shapes:
        features of any layout -> [N, C, H, W] of the image, in [0, 1], at least float32.
    """
    layout = spatial_layout(feature_shape, image_shape)
    image_channels, height, width = image_shape
    first = resized_convolution(layout.channels, 12, size=layout.size, to=(height, width))
    layers = [*norm_relu(first), nn.Conv2d(12, image_channels, 3, padding=1)]
    return he_normal_(Decoder(prepare=ToFeatureMap(layout), layers=layers))


DECODERS: dict[str, DecoderBuilder] = {"cifar": cifar_decoder}
