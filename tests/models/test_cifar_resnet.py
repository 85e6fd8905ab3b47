import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from infopro.errors import BadConfiguration
from infopro.models import cifar_resnet, demo_resnet


def parameter_count(num_blocks: int, num_classes: int, in_channels: int = 3) -> int:
    """Convolutions without bias, two numbers per BatchNorm channel, 1x1 shortcuts where the width changes."""
    widths = (16, 16, 32, 64)
    total = 9 * in_channels * 16 + 2 * 16
    for before, width in pairwise(widths):
        total += 9 * before * width + 9 * width * width + 4 * width
        total += (num_blocks - 1) * (2 * 9 * width * width + 4 * width)
        total += before * width + 2 * width if before != width else 0
    return total + 64 * num_classes + num_classes


@pytest.mark.parametrize(("depth", "num_blocks"), [(20, 3), (32, 5), (44, 7), (56, 9), (110, 18)])
def test_depth_gives_the_number_of_blocks_and_parameters(depth: int, num_blocks: int) -> None:
    with torch.device("meta"):
        network = cifar_resnet(depth, 10)
    assert [len(stage) for stage in (network.layer1, network.layer2, network.layer3)] == [num_blocks] * 3
    assert sum(p.numel() for p in network.parameters()) == parameter_count(num_blocks, 10)


def test_resnet32_has_as_many_parameters_as_the_formula_says_in_figures() -> None:
    assert parameter_count(5, 10) == sum(p.numel() for p in cifar_resnet(32, 10).parameters()) == 466_906


@pytest.mark.parametrize("depth", [0, 2, 9, 33])
def test_other_depths_are_refused(depth: int) -> None:
    with pytest.raises(BadConfiguration, match=r"6n \+ 2"):
        cifar_resnet(depth, 10)


def test_names_are_torchvisions() -> None:
    from torchvision.models.resnet import BasicBlock, ResNet

    theirs = ResNet(
        BasicBlock, [5, 5, 5, 1]
    )  # its names are the pattern; its fourth stage is not in a CIFAR net
    expected = [key for key in theirs.state_dict() if not key.startswith("layer4")]
    assert list(cifar_resnet(32, 10).state_dict()) == expected
    modules = [name for name, _ in theirs.named_modules() if not name.startswith(("layer4", "maxpool"))]
    assert [name for name, _ in cifar_resnet(32, 10).named_modules()] == modules


def test_a_copy_with_torchvisions_own_block_computes_the_same() -> None:
    from torchvision.models.resnet import BasicBlock

    torch.manual_seed(0)
    ours = cifar_resnet(20, 10).layer2[0]
    shortcut = nn.Sequential(nn.Conv2d(16, 32, 1, 2, bias=False), nn.BatchNorm2d(32))
    theirs = BasicBlock(16, 32, stride=2, downsample=shortcut)
    theirs.load_state_dict(ours.state_dict())
    features = torch.randn(2, 16, 8, 8)
    assert torch.equal(ours(features), theirs(features))


@pytest.mark.parametrize("size", [28, 32, 96])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_any_image_gives_logits_at_a_quarter_of_its_size(size: int, in_channels: int) -> None:
    network = cifar_resnet(20, 7, in_channels=in_channels).eval()
    shapes = []
    network.layer3.register_forward_hook(lambda module, args, out: shapes.append(tuple(out.shape)))
    with torch.no_grad():
        logits = network(torch.zeros(2, in_channels, size, size))
    assert logits.shape == (2, 7)
    assert shapes == [(2, 64, size // 4, size // 4)]


def test_initial_weights_have_the_published_spread() -> None:
    torch.manual_seed(0)
    network = cifar_resnet(32, 10)
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 4000:
            kernel, _ = module.kernel_size
            expected = math.sqrt(2 / (kernel * kernel * module.out_channels))
            assert module.weight.std().item() == pytest.approx(expected, rel=0.06)
            assert module.bias is None
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert torch.equal(module.bias, torch.zeros_like(module.bias))


def test_the_demonstrations_network_halves_the_image_in_its_stem() -> None:
    network = demo_resnet(10, blocks=(1, 2, 3), widths=(8, 16, 24))
    assert network.relu(network.conv1(torch.zeros(2, 3, 32, 32))).shape == (2, 8, 16, 16)
    assert [len(stage) for stage in (network.layer1, network.layer2, network.layer3)] == [1, 2, 3]
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert {name.split(".")[0] for name in network.state_dict()} == {
        name.split(".")[0] for name in cifar_resnet(20, 10).state_dict()
    }


def test_the_demonstrations_network_with_the_papers_options_is_a_cifar_resnet() -> None:
    torch.manual_seed(0)
    ours = demo_resnet(10, blocks=(3, 3, 3), stem_stride=1).state_dict()
    torch.manual_seed(0)
    for (name, value), (expected_name, expected) in zip(
        ours.items(), cifar_resnet(20, 10).state_dict().items(), strict=True
    ):
        assert name == expected_name and torch.equal(value, expected)
