"""The published reconstruction nets."""

import pytest
import torch
from torch import nn

from infopro.errors import BadConfiguration
from infopro.heads import decoder, list_decoders
from infopro.heads._resized_convolution import ResizedConv2d


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def sizes(net):
    return [module.to_size for module in net.modules() if isinstance(module, ResizedConv2d)]


def test_cifar_form_is_the_published_one():
    net = decoder("auto", feature_shape=(32, 16, 16), image_shape=(3, 32, 32))
    assert {name: list(value.shape) for name, value in net.layers.named_parameters()} == {
        "0.weight": [12, 32, 3, 3],
        "0.bias": [12],
        "1.weight": [12],
        "1.bias": [12],
        "3.weight": [3, 12, 3, 3],
        "3.bias": [3],
    }
    assert sizes(net) == [(32, 32)]


def test_imagenet_form_is_the_published_one():
    net = decoder("auto", feature_shape=(512, 28, 28), image_shape=(3, 224, 224))
    weights = {name: list(v.shape) for name, v in net.layers.named_parameters() if v.ndim == 4}
    assert weights == {
        "0.weight": [128, 512, 1, 1],
        "4.weight": [32, 128, 3, 3],
        "8.weight": [12, 32, 3, 3],
        "12.weight": [3, 12, 3, 3],
    }
    assert sizes(net) == [(56, 56), (112, 112), (224, 224)]
    assert all(m.bias is not None for m in net.modules() if isinstance(m, nn.Conv2d))


def test_imagenet_form_is_the_published_one_for_segmentation():
    with torch.device("meta"):
        net = decoder("auto", feature_shape=(1024, 64, 128), image_shape=(3, 512, 1024))
    weights = {name: list(v.shape) for name, v in net.layers.named_parameters() if v.ndim == 4}
    assert weights == {
        "0.weight": [128, 1024, 1, 1],
        "4.weight": [32, 128, 3, 3],
        "8.weight": [12, 32, 3, 3],
        "12.weight": [3, 12, 3, 3],
    }
    assert sizes(net) == [(128, 256), (256, 512), (512, 1024)]  # each time the double


@pytest.mark.parametrize("name", list_decoders())
@pytest.mark.parametrize("image", [(45, 61), (64, 97), (16, 33), (7, 50)])
@pytest.mark.parametrize(("channels", "stride"), [(1, 1), (3, 2), (5, 4), (6, 8), (40, 8), (9, 16), (4, 32)])
def test_any_stride_and_sides_that_do_not_divide(name, image, channels, stride):
    torch.manual_seed(0)
    size = [-(-side // stride) for side in image]
    net = decoder(name, feature_shape=(channels, *size), image_shape=(3, *image))
    features = random(2, channels, *size).requires_grad_()
    drawn = net.logits(features)
    assert drawn.shape == (2, 3, *image) and drawn.isfinite().all()
    drawn.sum().backward()
    read = features.grad.abs().sum(dim=(0, 1)) > 0
    # "half" makes a map of the image's own size smaller, and may then step over a position
    assert read.all() if stride > 1 else read.float().mean() > 0.2


def test_imagenet_form_never_shrinks_a_map():
    net = decoder("imagenet", feature_shape=(8, 112, 20), image_shape=(3, 112, 100))
    assert sizes(net) == [(112, 25), (112, 50), (112, 100)]


def test_map_of_the_image_size_is_not_copied():
    net = decoder("cifar", feature_shape=(4, 8, 8), image_shape=(3, 8, 8))
    features = torch.rand(2, 4, 8, 8)
    assert net.prepare(features) is features


@pytest.mark.parametrize("name", ["cifar", "imagenet"])
def test_half_precision_does_not_saturate(name):
    net = decoder(name, feature_shape=(4, 4, 4), image_shape=(3, 8, 8)).bfloat16()
    with torch.no_grad():
        net.layers[-2].weight.zero_()
        net.layers[-2].bias.fill_(8.0)
    output = net(torch.rand(2, 4, 4, 4, dtype=torch.bfloat16))
    assert output.dtype == torch.float32
    assert output.max() < 1


@pytest.mark.parametrize("name", list_decoders())
def test_logits_are_what_the_sigmoid_reads(name):
    net = decoder(name, feature_shape=(4, 4, 4), image_shape=(3, 8, 8)).eval()
    features = torch.rand(2, 4, 4, 4)
    assert torch.equal(torch.sigmoid(net.logits(features)), net(features))


def test_input_that_is_no_image_is_refused():
    with pytest.raises(
        BadConfiguration, match=r"only images can be reconstructed: got an input of shape \[784\]"
    ):
        decoder("auto", feature_shape=(64,), image_shape=(784,))
