"""The reconstruction net that InfoPro publishes for small images."""

from __future__ import annotations

from torch import nn

from infopro.heads._base import (
    DecoderBuilder,
    Head,
    Shape,
    SigmoidInFloat32,
    conv_norm_relu,
    he_normal_,
    resize,
)
from infopro.heads._features import ToFeatureMap, spatial_layout

__all__ = ["DECODERS", "cifar_decoder"]


def cifar_decoder(*, feature_shape: Shape, image_shape: Shape) -> Head:
    """Bilinear to the image's size, conv 3x3 to 12, BN, ReLU, conv 3x3 to the image's channels, sigmoid.

    Wang et al., ICLR 2021, their code; convolutions with bias. The resizing stands in `prepare`, so that the
    numbers of the layers are the published ones.

    Shapes:
        features of any layout -> [N, C, H, W] of the image, in [0, 1], at least float32.
    """
    layout = spatial_layout(feature_shape, image_shape)
    image_channels, height, width = image_shape
    layers: list[nn.Module] = [
        *conv_norm_relu(layout.channels, 12, kernel=3, bias=True),
        nn.Conv2d(12, image_channels, 3, padding=1),
        SigmoidInFloat32(),
    ]
    prepare = nn.Sequential(ToFeatureMap(layout), resize(layout.size, (height, width)))
    return he_normal_(Head(prepare=prepare, layers=layers))


DECODERS: dict[str, DecoderBuilder] = {"cifar": cifar_decoder}
