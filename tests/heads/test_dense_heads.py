"""Task heads that predict for every position: the published one, and the form that all others take."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from infopro.heads import list_task_heads, task_head

EVERY_PLAIN = list_task_heads(dense=False)
IMAGE = (3, 32, 32)


def build(name, feature_shape, image_shape=IMAGE, out_features=10, dense=True):
    torch.manual_seed(0)
    return task_head(
        name, feature_shape=feature_shape, image_shape=image_shape, out_features=out_features, dense=dense
    )


def both(name, feature_shape, image_shape=IMAGE):
    """The head for images and its dense form, drawn from the same seed."""
    return [build(name, feature_shape, image_shape, dense=dense).eval() for dense in (False, True)]


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def kinds(head):
    return [type(module).__name__ for module in head.layers]


def strides(head):
    return [module.stride for module in head.modules() if isinstance(module, nn.Conv2d)]


@pytest.mark.parametrize("name", EVERY_PLAIN)
@pytest.mark.parametrize("training", [False, True])
def test_of_a_map_of_one_position_it_is_the_head_for_images(name, training):
    plain, dense = (head.train(training) for head in both(name, (6, 1, 1)))
    features = random(5, 6, 1, 1)
    torch.testing.assert_close(dense(features)[:, :, 0, 0], plain(features))


@pytest.mark.parametrize("name", ["0c1f", "0c2f"])
def test_of_a_constant_map_every_position_is_the_head_for_images(name):
    plain, dense = both(name, (6, 4, 5))
    features = random(3, 6, 1, 1).expand(3, 6, 4, 5)
    torch.testing.assert_close(dense(features), plain(features)[:, :, None, None].expand(3, 10, 4, 5))


def test_the_mean_of_a_linear_head_over_its_positions_is_the_head_for_images():
    plain, dense = both("0c1f", (6, 4, 5))
    features = random(3, 6, 4, 5)
    torch.testing.assert_close(dense(features).mean(dim=(2, 3)), plain(features))


@pytest.mark.parametrize("name", ["0c1f", "0c2f", "mlp-sr"])
def test_without_convolutions_positions_do_not_see_each_other(name):
    head = build(name, (6, 4, 4)).eval()  # at an eighth of the image: mlp-sr reduces nothing
    features = random(2, 6, 4, 4)
    changed = features.clone()
    changed[:, :, 1, 2] += 1.0
    moved = (head(changed) - head(features)).abs().sum(dim=1) > 0
    assert moved[:, 1, 2].all() and moved.sum() == 2


def test_1c2f_in_dense_form():
    head = build("1c2f", (16, 32, 32))
    assert kinds(head) == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "ReLU", "Conv2d"]
    assert [list(layer.weight.shape) for layer in head.layers if isinstance(layer, nn.Conv2d)] == [
        [32, 16, 3, 3],
        [128, 32, 1, 1],
        [10, 128, 1, 1],
    ]
    assert head(random(2, 16, 32, 32)).shape == (2, 10, 16, 16)


def test_mlp_sr_in_dense_form_has_the_width_of_the_map():
    head = build("mlp-sr", (16, 32, 32))
    convolutions = [layer for layer in head.layers if isinstance(layer, nn.Conv2d)]
    assert [list(layer.weight.shape) for layer in convolutions] == [[16, 16, 1, 1]] * 6 + [[10, 16, 1, 1]]
    assert [layer.bias is None for layer in convolutions] == [True] * 6 + [False]
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in head.layers) == 6
    assert head(random(2, 16, 32, 32)).shape == (2, 10, 8, 8)  # a quarter of the side, as for images


@pytest.mark.parametrize(
    ("name", "feature_shape", "image_shape", "expected"),
    [
        ("1c2f", (16, 32, 32), (3, 32, 32), (16, 16)),
        ("1c2f", (16, 8, 8), (3, 32, 32), (4, 4)),
        ("1c2f", (16, 8, 16), (3, 64, 128), (8, 16)),  # an eighth of the image already
        ("1c2f", (16, 16, 16), (3, 64, 128), (8, 16)),  # that axis only
        ("mlp-sr", (8, 32, 64), (3, 64, 128), (8, 16)),
        ("mlp-sr", (8, 12, 16), (3, 45, 61), (6, 8)),  # a quarter would be less than an eighth of the image
        ("mlp-sr", (8, 4, 4), (3, 64, 64), (4, 4)),
        ("imagenet", (8, 56, 56), (3, 112, 112), (14, 14)),
        ("imagenet", (8, 56, 56), (3, 224, 224), (28, 28)),
        ("imagenet", (8, 28, 28), (3, 224, 224), (28, 28)),
        ("0c1f", (8, 5, 3), (3, 9, 6), (5, 3)),
        ("fcn", (8, 5, 3), (3, 9, 6), (5, 3)),
        ("fcn", (4, 4, 8), (3, 32, 32), (4, 4)),  # channels last
    ],
)
def test_maps_are_reduced_down_to_an_eighth_of_the_image(name, feature_shape, image_shape, expected):
    assert build(name, feature_shape, image_shape).eval()(random(1, *feature_shape)).shape == (
        (1, 10, *expected)
    )


def test_fcn_is_the_published_one():
    with torch.device("meta"):
        head = build("fcn", (1024, 64, 128), (3, 512, 1024), 19)
    assert kinds(head) == ["Conv2d", "BatchNorm2d", "ReLU", "Dropout", "Conv2d"]
    assert {name: list(value.shape) for name, value in head.layers.named_parameters()} == {
        "0.weight": [512, 1024, 3, 3],
        "1.weight": [512],
        "1.bias": [512],
        "4.weight": [19, 512, 1, 1],
        "4.bias": [19],
    }
    assert strides(head) == [(1, 1), (1, 1)]
    assert head.layers[3].p == 0.1


@pytest.mark.parametrize(
    ("channels", "width"), [(2, 4), (16, 32), (32, 64), (64, 64), (128, 64), (192, 96), (512, 256)]
)
def test_fcn_is_not_narrower_than_the_heads_of_small_images(channels, width):
    assert build("fcn", (channels, 4, 4)).layers[0].out_channels == width


def test_fcn_starts_near_the_loss_of_guessing():
    head, targets = build("fcn", (256, 8, 8), out_features=19), torch.arange(64).view(1, 8, 8) % 19
    assert F.cross_entropy(head(random(1, 256, 8, 8)), targets).item() == pytest.approx(math.log(19), abs=0.5)
    deviation = head.layers[0].weight.std().item() / math.sqrt(2 / (9 * 128))
    assert deviation == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("side", [32, 224])
def test_auto_is_fcn_whatever_the_image(side):
    assert kinds(build("auto", (16, 8, 8), (3, side, side))) == kinds(build("fcn", (16, 8, 8)))


def test_fcn_is_listed_for_dense_tasks_only():
    assert set(list_task_heads()) - set(EVERY_PLAIN) == {"fcn"}
    assert list_task_heads() == sorted(list_task_heads())


@pytest.mark.parametrize("name", list_task_heads())
def test_weights_change_and_the_loss_falls(name):
    head, features = build(name, (8, 8, 8)), random(4, 8, 8, 8)
    targets = (features.mean(dim=1) > 0).long()
    before = {key: value.clone() for key, value in head.named_parameters()}
    optimizer, losses = torch.optim.SGD(head.parameters(), lr=0.05, momentum=0.9), []
    for _ in range(12):
        optimizer.zero_grad()
        logits = F.interpolate(head(features), size=(8, 8), mode="bilinear", align_corners=False)
        loss = F.cross_entropy(logits, targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert not any(torch.equal(value, before[key]) for key, value in head.named_parameters())
