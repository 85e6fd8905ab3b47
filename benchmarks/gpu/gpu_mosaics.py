"""CIFAR-10 from lossless mosaics: one picture per published batch, and an .npz file of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from infopro.data import ImageData, ImageTensors
from infopro.data.torchvision_sets import SOURCES
from infopro.errors import BadData

__all__ = ["LABELS", "TEST", "TRAINING", "read_mosaics"]

SIDE = 32  # pixels of a tile
TRAINING = tuple(f"data_batch_{number}.webp" for number in range(1, 6))
TEST = "test_batch.webp"
LABELS = "labels.npz"


def read_mosaics(folder: Path) -> ImageData:
    """The data set that `infopro.data.load("cifar10")` gives, in the same order, without its files.

    A mosaic is a picture of tiles of 32x32 pixels, read row by row; `labels.npz` holds `y_train`, `y_test`
    and `class_names`.

    Raises:
        BadData: a file that is missing, cannot be read, or holds another number of images than of labels.
    """
    try:
        with np.load(folder / LABELS) as labels:
            train = _part(folder, TRAINING, labels["y_train"])
            test = _part(folder, (TEST,), labels["y_test"])
            names = tuple(map(str, labels["class_names"]))
    except (OSError, ValueError, KeyError) as error:
        raise BadData("the mosaics of CIFAR-10 cannot be read", got=error) from error
    source = SOURCES["cifar10"]
    return ImageData(
        name="cifar10",
        train=train,
        test=test,
        num_classes=source.num_classes,
        class_names=names,
        mean=source.mean,
        std=source.std,
        image_shape=(3, SIDE, SIDE),
        augmentation=source.augmentation,
    )


def _part(folder: Path, files: tuple[str, ...], labels: np.ndarray) -> ImageTensors:
    images = torch.cat([_tiles(folder / file) for file in files])
    return ImageTensors(images, torch.as_tensor(labels, dtype=torch.int64))


def _tiles(file: Path) -> Tensor:
    """uint8 [N, 3, 32, 32]."""
    with Image.open(file) as picture:
        pixels = torch.from_numpy(np.array(picture.convert("RGB")))
    rows, columns = pixels.shape[0] // SIDE, pixels.shape[1] // SIDE
    tiles = pixels.view(rows, SIDE, columns, SIDE, 3)
    return tiles.permute(0, 2, 4, 1, 3).reshape(-1, 3, SIDE, SIDE).contiguous()
