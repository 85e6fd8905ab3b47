"""The task head that InfoPro publishes for semantic segmentation."""

from __future__ import annotations

from torch import nn

from infopro.heads._base import Head, Shape, TaskHeadBuilder, conv_norm_relu, he_normal_
from infopro.heads._features import ToFeatureMap, spatial_layout

__all__ = ["DENSE_TASK_HEADS", "fcn"]

DROPOUT = 0.1  # share of the map's values, as published


def fcn(*, feature_shape: Shape, image_shape: Shape, out_features: int) -> Head:
    """conv 3x3 to half the channels, BN, ReLU, dropout 0.1, conv 1x1: a prediction for every position.

    Published (Wang et al., ICLR 2021, their code) for 1024 channels at an eighth of the image's side; the
    paper's auxiliary FCN head and torchvision's are built alike. Here it is never narrower than the published
    heads of small images: min(2C, 64) up to 128 channels, C / 2 above.

    Shapes:
        features of any layout with a grid of h x w -> [N, out_features, h, w].
    """
    layout = spatial_layout(feature_shape, image_shape)
    width = max(layout.channels // 2, min(2 * layout.channels, 64))
    layers = [*conv_norm_relu(layout.channels, width, kernel=3), nn.Dropout(DROPOUT)]
    head = he_normal_(Head(prepare=ToFeatureMap(layout), layers=layers))
    # drawn as torch draws it: fan-out He weights of so few outputs would start with logits far from 0
    head.layers.append(nn.Conv2d(width, out_features, 1))
    return head


DENSE_TASK_HEADS: dict[str, TaskHeadBuilder] = {"fcn": fcn}
