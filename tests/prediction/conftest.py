"""Networks whose answer is known, or depends on what is around a pixel."""

import pytest
import torch
from torch import nn

from infopro.tasks import Segmentation

CLASSES = 3


class Pointwise(nn.Module):
    """The logits are the image's channels; notes the shapes and the modes that it sees."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append((tuple(images.shape), self.training, torch.is_grad_enabled()))
        return images


class Ramp(nn.Module):
    """Believes in the first class on the left: to it, a mirrored image is another one."""

    def forward(self, images):
        ramp = torch.linspace(2, -2, images.shape[-1]).expand(images.shape[-2:])
        return images + torch.stack([ramp, 0 * ramp, 0 * ramp])


@pytest.fixture
def task():
    return Segmentation(num_classes=CLASSES)


@pytest.fixture
def pointwise():
    return Pointwise()


@pytest.fixture
def ramp():
    return Ramp()


@pytest.fixture
def neighbourhood():
    """A network in training mode that looks at 5 x 5 pixels, padded by zeros, so that edges matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, CLASSES, 3, padding=1),
        )


@pytest.fixture
def images():
    """Normalised images of a shape."""
    return lambda *shape, seed=0: torch.randn(shape, generator=torch.Generator().manual_seed(seed))
