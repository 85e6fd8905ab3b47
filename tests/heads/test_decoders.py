"""The published reconstruction nets."""

import pytest
import torch
from torch import nn

from infopro.errors import BadConfiguration
from infopro.heads import decoder, list_decoders
from infopro.heads._resized_convolution import ResizedConv2d


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
