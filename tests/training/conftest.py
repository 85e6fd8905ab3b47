from dataclasses import replace

import pytest
import torch
from torch import nn

import infopro
from infopro.data import Augmentation, ImageData, ImageTensors
from infopro.objectives import InfoPro
from infopro.types import EpochRecord


def _images(size, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (size,), generator=generator)
    images = torch.randint(100, (size, 3, 8, 8), generator=generator, dtype=torch.uint8)
    images[torch.arange(size), labels] += 30  # the class is the brightest colour
    return ImageTensors(images, labels)


@pytest.fixture
def data():
    return ImageData(
        name="colours",
        train=_images(40, 0),
        test=_images(20, 1),
        num_classes=3,
        class_names=("red", "green", "blue"),
        mean=(0.3, 0.3, 0.3),
        std=(0.2, 0.2, 0.2),
        image_shape=(3, 8, 8),
        augmentation=Augmentation(crop_padding=1, flip=True),
    )


def _block(in_channels, channels):
    convolution = nn.Conv2d(in_channels, channels, 3, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(), nn.Dropout(0.2))


def network(seed=0):
    """Has all that makes resuming hard: dropout, running statistics, channels-last weights."""
    torch.manual_seed(seed)
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)]
    model = nn.Sequential(_block(3, 4), _block(4, 6), _block(6, 6), *pool)
    return model.to(memory_format=torch.channels_last)


@pytest.fixture
def build(data):
    def make(seed=0, **options):
        settings = {"objective": InfoPro(), "cuts": ["0", "1"], **options}
        task = infopro.tasks.Classification(num_classes=3, mean=data.mean, std=data.std)
        return infopro.localize(network(seed), torch.rand(2, 3, 8, 8), task=task, **settings)

    return make


@pytest.fixture
def record():
    first = EpochRecord(
        epoch=1,
        learning_rate=0.1,
        losses=({"reconstruction": 0.7, "task": 1.1, "total": 4.6}, {"task": 1.0, "total": 1.0}),
        train_error=60.0,
        test_error=55.0,
        test_loss=1.05,
        best_test_error=55.0,
        seconds=2.0,
        images_per_second=20.0,
    )
    return lambda **changes: replace(first, **changes)
