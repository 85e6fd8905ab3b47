"""From a head that predicts for an image to one that predicts for every position of its map."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from infopro.errors import BadConfiguration, NotYetSupported
from infopro.heads._base import Head, Shape
from infopro.heads._features import SpatialLayout, is_grid, spatial_layout

__all__ = ["check_positions", "fully_convolutional"]

COARSEST = 8  # pixels per position: the published network's own stride


def check_positions(feature_shape: Shape, image_shape: Shape) -> None:
    """Raises an error where features have no positions that are places of an image.

    Raises:
        BadConfiguration: the network's input is no image.
        NotYetSupported: tokens that are no grid of the image; features of more than three dimensions.
    """
    if len(image_shape) != 3:
        raise BadConfiguration(
            "only images have a prediction for every pixel",
            got=f"an input of shape {list(image_shape)}",
            allowed="[C, H, W]",
        )
    layout = spatial_layout(feature_shape, image_shape)
    if layout.kind == "tokens" and not is_grid(layout.size, (image_shape[1], image_shape[2])):
        raise NotYetSupported(
            "no auxiliary net predicts pixels from tokens that are no grid of the image",
            got=f"{feature_shape[0]} tokens for {image_shape[1]}x{image_shape[2]} pixels",
            remedy="cut the network after another block",
        )


def fully_convolutional(head: Head, *, feature_shape: Shape, image_shape: Shape) -> Head:
    """The head with what it does to a pooled image done at every position (Long et al., CVPR 2015).

    Global pooling and flattening fall away, linear layers become 1x1 convolutions with the same weights,
    BatchNorm1d becomes BatchNorm2d: of a map of one position it is the head that it was. What else reduces
    the map - strides, adaptive pooling between convolutions - does so only down to an eighth of the image's
    side, the stride of the paper's segmentation network. Other layers must keep the map's size.

    Shapes:
        [N, ...features] -> [N, out_features, h, w].
    """
    layout = spatial_layout(feature_shape, image_shape)
    layers = list(_form(list(head.layers), layout, (image_shape[1], image_shape[2])))
    return Head(prepare=head.prepare, layers=layers)


def _form(layers: list[nn.Module], layout: SpatialLayout, image: tuple[int, int]) -> Iterator[nn.Module]:
    rows, columns = (_Axis(size, -(-side // COARSEST)) for size, side in zip(layout.size, image, strict=True))
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        match layer:
            case nn.Conv2d():
                layer.stride = rows.stride(layer.stride[0]), columns.stride(layer.stride[1])
                yield layer
            case nn.AdaptiveAvgPool2d() if not isinstance(following, nn.Flatten):
                yield _pooling((rows, columns), layer)
            case nn.AdaptiveAvgPool2d() | nn.Flatten():
                pass
            case nn.Linear():
                yield _pointwise(layer)
            case nn.BatchNorm1d():
                yield nn.BatchNorm2d(layer.num_features)
            case _:
                yield layer


class _Axis:
    """Follows the map's length along one axis, and lets nothing reduce it below `least`."""

    def __init__(self, size: int, least: int):
        self.size, self.least = size, least

    def stride(self, stride: int) -> int:
        after = -(-self.size // stride)  # of a convolution that is padded to keep the size at stride 1
        if after < min(self.size, self.least):
            return 1
        self.size = after
        return stride

    def pool(self, size: int | None) -> int:
        self.size = max(size or self.size, min(self.size, self.least))
        return self.size


def _pooling(axes: tuple[_Axis, _Axis], pool: nn.AdaptiveAvgPool2d) -> nn.Module:
    before = tuple(axis.size for axis in axes)
    assert isinstance(pool.output_size, tuple)
    after = tuple(axis.pool(size) for axis, size in zip(axes, pool.output_size, strict=True))
    return nn.Identity() if after == before else nn.AdaptiveAvgPool2d(after)


def _pointwise(linear: nn.Linear) -> nn.Conv2d:
    convolution = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None)
    convolution.weight = nn.Parameter(linear.weight.detach()[:, :, None, None])
    convolution.bias = linear.bias
    return convolution
