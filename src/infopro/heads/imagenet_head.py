"""The task head that InfoPro publishes for ImageNet."""

from __future__ import annotations

from torch import nn

from infopro.heads._base import Head, Shape, TaskHeadBuilder, conv_norm_relu, global_pool, he_normal_
from infopro.heads._features import ToFeatureMap, spatial_layout

__all__ = ["TASK_HEADS", "imagenet_head"]

SMALLEST_MAP = 7  # side of the map that the published head pools over


def imagenet_head(*, feature_shape: Shape, image_shape: Shape, out_features: int) -> Head:
    """conv 1x1 to 128, 3x3 stride 2 to 256, 3x3 stride 2 to 512, 1x1 to 2048 (each BN, ReLU), GAP, linear.

    Published (Wang et al., ICLR 2021, their code) for 512 channels at 28x28. Here an axis is halved only
    while it is longer than 7, so that the head also fits maps and token grids that are small already.

    Shapes:
        features of any layout -> [N, out_features].
    """
    layout = spatial_layout(feature_shape, image_shape)
    first, size = _halving(layout.size)
    second, _ = _halving(size)
    layers: list[nn.Module] = [
        *conv_norm_relu(layout.channels, 128, kernel=1),
        *conv_norm_relu(128, 256, kernel=3, stride=first),
        *conv_norm_relu(256, 512, kernel=3, stride=second),
        *conv_norm_relu(512, 2048, kernel=1),
        *global_pool(),
        nn.Linear(2048, out_features),
    ]
    return he_normal_(Head(prepare=ToFeatureMap(layout), layers=layers))


def _halving(size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The stride at a map of this size, and the size after it."""
    vertical, horizontal = (2 if side > SMALLEST_MAP else 1 for side in size)
    return (vertical, horizontal), (-(-size[0] // vertical), -(-size[1] // horizontal))


TASK_HEADS: dict[str, TaskHeadBuilder] = {"imagenet": imagenet_head}
