"""Residual networks for small images, with the names that torchvision gives to its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from infopro.errors import BadConfiguration

__all__ = ["MODELS", "BasicBlock", "CifarResNet", "cifar_resnet", "demo_resnet"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: [N, C, H, W] to [N, width, H/stride, W/stride]."""

    def __init__(self, in_channels: int, width: int, *, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        identity = x if self.downsample is None else self.downsample(x)
        activated: Tensor = self.relu(out + identity)
        return activated


def _shortcut(in_channels: int, width: int, *, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == width:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))


class CifarResNet(nn.Module):
    """A 3x3 stem and three stages of basic blocks: images [N, C, H, W] to logits [N, classes]."""

    def __init__(
        self,
        *,
        blocks: tuple[int, int, int],
        widths: tuple[int, int, int],
        num_classes: int,
        in_channels: int,
        stem_stride: int = 1,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, stem_stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()  # not in place: a cut may lie in front of it
        self.layer1 = _stage(blocks[0], widths[0], widths[0], stride=1)
        self.layer2 = _stage(blocks[1], widths[0], widths[1], stride=2)
        self.layer3 = _stage(blocks[2], widths[1], widths[2], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[2], num_classes)
        self.apply(_initialize)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _stage(num_blocks: int, in_channels: int, width: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, width, stride=stride)
    return nn.Sequential(first, *(BasicBlock(width, width, stride=1) for _ in range(num_blocks - 1)))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):  # N(0, sqrt(2 / (k * k * out_channels)))
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def cifar_resnet(depth: int, num_classes: int, *, in_channels: int = 3) -> CifarResNet:
    """Build the ResNet for CIFAR of He et al. (CVPR 2016, arXiv 1512.03385, section 4.2).

    It has (depth - 2) / 6 basic blocks in each of three stages of 16, 32 and 64 channels. Like InfoPro's
    networks, and unlike He et al.'s (their option A), a shortcut that changes the shape is a 1x1 convolution
    with BatchNorm. Images of any size [N, in_channels, H, W] give logits [N, num_classes].

    Raises:
        BadConfiguration: the depth is not 6n + 2.

    Example:
        >>> network = cifar_resnet(32, num_classes=10)
        >>> len(network.layer1), network.fc.out_features
        (5, 10)
    """
    num_blocks, remainder = divmod(depth - 2, 6)
    if num_blocks < 1 or remainder:
        raise BadConfiguration(
            "a CIFAR ResNet has three stages of n blocks with two layers each",
            got=f"depth {depth}",
            allowed="6n + 2",
            remedy="take depth 20, 32, 44, 56 or 110",
        )
    blocks = (num_blocks, num_blocks, num_blocks)
    return CifarResNet(blocks=blocks, widths=(16, 32, 64), num_classes=num_classes, in_channels=in_channels)


def demo_resnet(
    num_classes: int,
    *,
    blocks: tuple[int, int, int] = (2, 2, 2),
    widths: tuple[int, int, int] = (16, 32, 64),
    stem_stride: int = 2,
    in_channels: int = 3,
) -> CifarResNet:
    """Build the demonstration's network: a CIFAR ResNet of few blocks whose stem halves the image, for a CPU.

    Example:
        >>> [name for name, _ in demo_resnet(10).layer1.named_children()]
        ['0', '1']
    """
    return CifarResNet(
        blocks=blocks,
        widths=widths,
        num_classes=num_classes,
        in_channels=in_channels,
        stem_stride=stem_stride,
    )


MODELS: dict[str, Callable[..., nn.Module]] = {
    **{f"cifar_resnet{depth}": partial(cifar_resnet, depth) for depth in (20, 32, 44, 56, 110)},
    "demo_resnet": demo_resnet,
    # enough blocks for K = 8, and thin: a study of a hundred trainings within hours
    "demo_resnet20": partial(demo_resnet, blocks=(3, 3, 3), widths=(8, 16, 32)),
}
