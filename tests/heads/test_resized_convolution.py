"""A convolution of an enlarged map, computed on the small one."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from infopro.heads._resized_convolution import ResizedConv2d
from infopro.memory.tracker import MemoryTracker

SIZES = [
    ((8, 8), (32, 32)),
    ((5, 3), (13, 7)),
    ((4, 4), (9, 17)),
    ((1, 1), (6, 6)),
    ((1, 7), (12, 7)),
    ((7, 7), (7, 14)),
]


def resized_then_convolved(net, features):
    resized = F.interpolate(features, size=net.to_size, mode="bilinear", align_corners=True)
    return F.conv2d(resized, net.weight, net.bias, padding=1)


def made(size, to, *, bias=True, channels=24, outputs=5):
    torch.manual_seed(0)
    net = ResizedConv2d(channels, outputs, size=size, to=to, bias=bias).double()
    return net, torch.randn(3, channels, *size, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("size", "to"), SIZES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("small", [True, False])
def test_values_and_gradients_are_those_of_resizing_first(size, to, bias, small):
    net, features = made(size, to, bias=bias)
    net.on_small_map = small
    net._make_taps(net.weight)
    output, expected = net(features), resized_then_convolved(net, features)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-12)
    sources = [features, *net.parameters()]
    direction = torch.randn_like(expected)
    found = torch.autograd.grad(output, sources, direction)
    for gradient, right in zip(found, torch.autograd.grad(expected, sources, direction), strict=True):
        torch.testing.assert_close(gradient, right, rtol=0, atol=1e-10)


def test_the_form_with_fewer_multiplications_is_taken():
    taken = {
        (64, 12, 8, 32): True,
        (32, 12, 16, 32): True,
        (128, 32, 28, 56): True,
        (32, 12, 56, 112): False,
        (12, 3, 112, 224): False,
    }
    for (channels, outputs, size, to), small in taken.items():
        net = ResizedConv2d(channels, outputs, size=(size, size), to=(to, to))
        assert net.on_small_map is small, net


@pytest.mark.parametrize("small", [True, False])
def test_the_enlarged_map_is_neither_kept_nor_convolved_twice(small):
    net, features = made((8, 8), (32, 32))
    net.on_small_map = small
    net._make_taps(net.weight)
    with MemoryTracker() as tracker, FlopCounterMode(display=False) as flops:
        for tensor in (features, *net.parameters(), *net.buffers()):
            tracker.label(tensor, "parameters")
        output = net(features)
        kept = tracker.totals["temporary"] - output.nbytes
        forward = flops.get_total_flops()
        output.sum().backward()
    assert kept <= features.nbytes + net.weight.nbytes  # both in another order, at most
    assert flops.get_total_flops() <= 3 * forward


def test_casts_and_copies_keep_the_interpolation_exact():
    net, features = made((4, 4), (32, 32))
    again = copy.deepcopy(net.bfloat16()).double()
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again(features), resized_then_convolved(again, features), rtol=0, atol=1e-12)
    assert set(net.state_dict()) == {"weight", "bias"}


def test_weights_are_drawn_like_those_of_a_convolution():
    torch.manual_seed(3)
    plain = torch.nn.Conv2d(8, 4, 3, padding=1)
    torch.manual_seed(3)
    net = ResizedConv2d(8, 4, size=(4, 4), to=(8, 8))
    assert torch.equal(net.weight, plain.weight)
    assert torch.equal(net.bias, plain.bias)
