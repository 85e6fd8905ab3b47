"""The published task heads: layers, shapes, strides, names, initial weights."""

import math

import pytest
import torch
from torch import nn

from infopro.heads import list_task_heads, task_head


def build(name, feature_shape, image_shape=(3, 32, 32), out_features=10):
    return task_head(name, feature_shape=feature_shape, image_shape=image_shape, out_features=out_features)


def shapes(head):
    return {name: list(value.shape) for name, value in head.layers.named_parameters()}


def strides(head):
    return [module.stride for module in head.modules() if isinstance(module, nn.Conv2d)]


def kinds(head):
    return [type(module).__name__ for module in head.layers]


@pytest.mark.parametrize(
    ("feature_shape", "width", "stride"),
    [((16, 32, 32), 32, 2), ((32, 16, 16), 64, 2), ((64, 8, 8), 64, 1)],
)
def test_1c2f_is_the_published_one(feature_shape, width, stride):
    head = build("1c2f", feature_shape)
    assert kinds(head) == (
        ["Conv2d", "BatchNorm2d", "ReLU", "AdaptiveAvgPool2d", "Flatten", "Linear", "ReLU", "Linear"]
    )
    assert shapes(head) == {
        "0.weight": [width, feature_shape[0], 3, 3],
        "1.weight": [width],
        "1.bias": [width],
        "5.weight": [128, width],
        "5.bias": [128],
        "7.weight": [10, 128],
        "7.bias": [10],
    }
    assert strides(head) == [(stride, stride)]


@pytest.mark.parametrize(
    ("name", "linear_shapes", "num_convs"),
    [
        ("0c1f", [[10, 32]], 0),
        ("0c2f", [[128, 32], [10, 128]], 0),
        ("1c1f", [[10, 64]], 1),
        ("1c2f", [[128, 64], [10, 128]], 1),
        ("1c3f", [[128, 64], [128, 128], [10, 128]], 1),
        ("2c2f", [[128, 64], [10, 128]], 2),
    ],
)
def test_names_count_convolutions_and_linear_layers(name, linear_shapes, num_convs):
    head = build(name, (32, 16, 16))
    linears = [module for module in head.layers if isinstance(module, nn.Linear)]
    assert [list(module.weight.shape) for module in linears] == linear_shapes
    assert strides(head) == [(2, 2), (1, 1)][:num_convs]


def test_0c1f_is_pool_and_linear():
    features = torch.rand(2, 16, 4, 4)
    head = build("0c1f", (16, 4, 4))
    assert kinds(head) == ["AdaptiveAvgPool2d", "Flatten", "Linear"]
    expected = nn.functional.linear(features.mean(dim=(2, 3)), head.layers[2].weight, head.layers[2].bias)
    torch.testing.assert_close(head(features), expected)


@pytest.mark.parametrize(
    ("feature_shape", "width", "stride"),
    [
        ((24, 32, 32), 48, (2, 2)),
        ((96, 8, 8), 96, (1, 1)),
        ((256, 56, 56), 128, (2, 2)),
        ((2048, 7, 7), 128, (1, 1)),
        ((16, 1, 1), 32, (1, 1)),
        ((16, 1, 9), 32, (1, 2)),
    ],
)
def test_rule_beyond_the_published_widths(feature_shape, width, stride):
    head = build("1c2f", feature_shape, image_shape=(3, 224, 224))
    assert head.layers[0].out_channels == width
    assert strides(head) == [stride]


def test_imagenet_head_is_the_published_one():
    head = build("imagenet", (512, 28, 28), (3, 224, 224), 1000)
    convolutions = {name: shape for name, shape in shapes(head).items() if len(shape) == 4}
    assert convolutions == {
        "0.weight": [128, 512, 1, 1],
        "3.weight": [256, 128, 3, 3],
        "6.weight": [512, 256, 3, 3],
        "9.weight": [2048, 512, 1, 1],
    }
    assert list(head.layers[14].weight.shape) == [1000, 2048]
    assert strides(head) == [(1, 1), (2, 2), (2, 2), (1, 1)]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((14, 14), [(2, 2), (1, 1)]), ((7, 7), [(1, 1), (1, 1)]), ((15, 7), [(2, 1), (2, 1)])],
)
def test_imagenet_head_halves_only_what_is_longer_than_7(size, expected):
    assert strides(build("imagenet", (8, *size), (3, 224, 224)))[1:3] == expected


def test_mlp_sr_is_the_published_one():
    head = build("mlp-sr", (16, 30, 30))
    assert head.layers[0].output_size == (8, 8)  # ceil(30 / 4)
    assert [list(layer.weight.shape) for layer in head.layers if isinstance(layer, nn.Conv2d)] == [
        [16, 16, 1, 1]
    ] * 3
    linears = [layer for layer in head.layers if isinstance(layer, nn.Linear)]
    assert [list(layer.weight.shape) for layer in linears] == [[64, 64]] * 3 + [[10, 64]]
    assert [layer.bias is None for layer in linears] == [True, True, True, False]
    assert [type(layer).__name__ for layer in head.layers[10:13]] == [
        "AdaptiveAvgPool2d",
        "Flatten",
        "Linear",
    ]


def test_mlp_sr_pools_to_2x2_but_never_repeats_a_vector():
    assert build("mlp-sr", (8, 4, 4)).layers[-1].in_features == 32
    assert build("mlp-sr", (8,)).layers[-1].in_features == 8


@pytest.mark.parametrize("name", ["1c2f", "imagenet"])
def test_convolutions_start_as_in_the_paper(name):
    torch.manual_seed(0)
    convolution = next(m for m in build(name, (256, 8, 8)).modules() if isinstance(m, nn.Conv2d))
    side, out_channels = convolution.kernel_size[0], convolution.out_channels
    expected = math.sqrt(2 / (side * side * out_channels))
    assert abs(convolution.weight.std().item() / expected - 1) < 0.02


@pytest.mark.parametrize(("side", "first_kernel"), [(32, 3), (96, 3), (97, 1), (224, 1)])
def test_auto_chooses_by_the_image(side, first_kernel):
    head = build("auto", (16, 8, 8), (3, side, side))
    assert head.layers[0].kernel_size == (first_kernel, first_kernel)


def test_every_published_head_is_listed():
    published = {"0c1f", "0c2f", "1c1f", "1c2f", "1c3f", "2c2f", "imagenet", "mlp-sr"}
    assert published <= set(list_task_heads())
