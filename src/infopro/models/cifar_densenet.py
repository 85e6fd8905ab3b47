"""Densely connected networks for small images, with the names that torchvision gives to its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from infopro.errors import BadConfiguration

__all__ = ["MODELS", "CifarDenseNet", "DenseLayer", "Transition", "cifar_densenet_bc"]


class DenseLayer(nn.Module):
    """A bottleneck layer that appends to its input: [N, C, H, W] to [N, C + growth_rate, H, W].

    Because it returns the whole concatenation, ONE tensor crosses a cut behind it (torchvision: a list).
    """

    def __init__(self, in_channels: int, growth_rate: int):
        super().__init__()
        bottleneck = 4 * growth_rate
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, bottleneck, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(bottleneck)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(bottleneck, growth_rate, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(self.relu1(self.norm1(x)))
        new = self.conv2(self.relu2(self.norm2(hidden)))
        return torch.cat([x, new], 1)


class Transition(nn.Sequential):
    """Between dense blocks: half the channels, half the height and width."""

    def __init__(self, in_channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_channels, in_channels // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2)


class CifarDenseNet(nn.Module):
    """A 3x3 stem and three dense blocks: images [N, C, H, W] to logits [N, classes]."""

    def __init__(self, *, num_layers: int, growth_rate: int, num_classes: int, in_channels: int):
        super().__init__()
        channels = 2 * growth_rate
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(in_channels, channels, 3, padding=1, bias=False))
        for number in (1, 2, 3):
            self.features.add_module(f"denseblock{number}", _dense_block(channels, growth_rate, num_layers))
            channels += num_layers * growth_rate
            if number < 3:
                self.features.add_module(f"transition{number}", Transition(channels))
                channels //= 2
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.classifier = nn.Linear(channels, num_classes)
        self.apply(_initialize)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.features(x))
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def _dense_block(in_channels: int, growth_rate: int, num_layers: int) -> nn.Sequential:
    block = nn.Sequential()
    for index in range(num_layers):
        block.add_module(f"denselayer{index + 1}", DenseLayer(in_channels + index * growth_rate, growth_rate))
    return block


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def cifar_densenet_bc(
    depth: int, growth_rate: int, num_classes: int, *, in_channels: int = 3
) -> CifarDenseNet:
    """Build the DenseNet-BC for CIFAR of Huang et al. (CVPR 2017, arXiv 1608.06993), without dropout.

    It has (depth - 4) / 6 bottleneck layers in each of three dense blocks, a stem of 2 * growth_rate channels
    and compression 0.5. Images [N, in_channels, H, W] of 4 pixels a side or more give logits
    [N, num_classes].

    Raises:
        BadConfiguration: the depth is not 6n + 4.

    Example:
        >>> network = cifar_densenet_bc(100, 12, num_classes=10)
        >>> sum(p.numel() for p in network.parameters())
        769162
    """
    num_layers, remainder = divmod(depth - 4, 6)
    if num_layers < 1 or remainder:
        raise BadConfiguration(
            "a CIFAR DenseNet-BC has three blocks of n bottleneck layers with two convolutions each",
            got=f"depth {depth}",
            allowed="6n + 4",
            remedy="take depth 100",
        )
    return CifarDenseNet(
        num_layers=num_layers, growth_rate=growth_rate, num_classes=num_classes, in_channels=in_channels
    )


MODELS: dict[str, Callable[..., nn.Module]] = {
    "cifar_densenet_bc_100_12": partial(cifar_densenet_bc, 100, 12),
}
