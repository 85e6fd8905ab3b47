"""CIFAR-10 and -100, SVHN, STL-10, MNIST and Fashion-MNIST, read by torchvision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infopro.data._bad_images import BadImages
from infopro.data._messages import one_line, quoted
from infopro.data._packages import import_package
from infopro.data._types import Augmentation, ImageData, ImageTensors
from infopro.errors import BadData

__all__ = ["SETS", "torchvision_set"]

CIFAR_MEAN = (125.3 / 255, 123.0 / 255, 113.9 / 255)
CIFAR_STD = (63.0 / 255, 62.1 / 255, 66.7 / 255)
DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class _Source:
    reader: str  # torchvision's class
    needs: tuple[str, ...]  # what must lie in the data folder
    augmentation: Augmentation
    num_classes: int = 10
    class_names: tuple[str, ...] | None = None  # None: the reader knows them
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    part_argument: str = "train"  # how the reader is told the part: train=True or split="train"


CIFAR_CROP = Augmentation(crop_padding=4, padding_mode="reflect", flip=True)
SMALL_CROP = Augmentation(crop_padding=2, padding_mode="zero")
# augmentation and normalisation of the InfoPro paper; for the two MNISTs, which it does not train on, ours
SOURCES = {
    "cifar10": _Source("CIFAR10", ("cifar-10-batches-py",), CIFAR_CROP, mean=CIFAR_MEAN, std=CIFAR_STD),
    "cifar100": _Source("CIFAR100", ("cifar-100-python",), CIFAR_CROP, 100, mean=CIFAR_MEAN, std=CIFAR_STD),
    "svhn": _Source(
        "SVHN", ("train_32x32.mat", "test_32x32.mat"), SMALL_CROP, class_names=DIGITS, part_argument="split"
    ),
    "stl10": _Source(
        "STL10",
        ("stl10_binary",),
        Augmentation(crop_padding=4, padding_mode="zero", flip=True),
        class_names=("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
        part_argument="split",
    ),
    "mnist": _Source("MNIST", ("MNIST/raw",), SMALL_CROP, class_names=DIGITS, mean=(0.5,), std=(0.5,)),
    "fashion-mnist": _Source(
        "FashionMNIST",
        ("FashionMNIST/raw",),
        Augmentation(crop_padding=2, padding_mode="zero", flip=True),
        mean=(0.5,),
        std=(0.5,),
    ),
}


def torchvision_set(name: str, *, data_dir: Path | str, download: bool = False, seed: int = 0) -> ImageData:
    """One of SOURCES from a folder as torchvision lays it out; the network is used only with `download=True`.

    Grey sets keep one channel. STL-10 gives its 5000 labelled training images. The sets are fixed, hence
    `seed` changes nothing.

    Errors:
        BadData: the folder lacks the set, or a file of it is incomplete. MissingPackage: torchvision (for
        SVHN also scipy) is not installed or was built for another torch.
    """
    source, data_dir = SOURCES[name], Path(data_dir)
    if source.needs == (data_dir.name,) and data_dir.is_dir():
        data_dir = data_dir.parent  # the set's own folder was named
    train, test, reader = _read(name, source, data_dir, download)
    names = source.class_names or tuple(str(each) for each in reader.classes)
    channels, height, width = train.images.shape[1:]
    return ImageData(
        name=name,
        train=train,
        test=test,
        num_classes=source.num_classes,
        class_names=names,
        mean=source.mean,
        std=source.std,
        image_shape=(channels, height, width),
        augmentation=source.augmentation,
    )


def _read(
    name: str, source: _Source, data_dir: Path, download: bool
) -> tuple[ImageTensors, ImageTensors, Any]:
    purpose = f"the data set {name}"
    datasets = import_package("torchvision.datasets", extra="vision", purpose=purpose)
    if name == "svhn":
        import_package("scipy.io", extra="demo", purpose=purpose)  # comes with scikit-learn
    missing = [need for need in source.needs if not (data_dir / need).exists()]
    if missing and not download:
        raise BadData(
            f"{name} is not in the data folder",
            got=f"{quoted(data_dir)} without {' and '.join(missing)}",
            remedy="pass --download, or name the folder that holds it with --data-dir",
        )
    parts = ("train", "test")
    arguments = [part == "train" if source.part_argument == "train" else part for part in parts]
    reader_class = getattr(datasets, source.reader)
    try:
        readers = [
            reader_class(data_dir, **{source.part_argument: argument}, download=download)
            for argument in arguments
        ]
    except Exception as error:  # the network, the unpickler and the array readers each raise their own
        remedy = "delete it and pass --download" if not download else "check the network and the free space"
        raise BadData(
            f"cannot read {name} ({one_line(error)})", got=quoted(data_dir), remedy=remedy
        ) from error
    train, test = (_tensors(reader) for reader in readers)
    return train, test, readers[0]


def _tensors(reader: Any) -> ImageTensors:
    images = torch.as_tensor(reader.data)
    labels = torch.as_tensor(reader.targets if hasattr(reader, "targets") else reader.labels)
    return ImageTensors(_channels_first(images), labels.to(torch.int64))


def _channels_first(images: Tensor) -> Tensor:
    if images.dim() == 3:
        return images[:, None].contiguous()
    return (images.permute(0, 3, 1, 2) if images.shape[3] == 3 else images).contiguous()


def _load(name: str, *, bad_images: BadImages, **how: Any) -> ImageData:
    bad_images.require_unread(name)
    return torchvision_set(name, **how)


SETS: dict[str, Callable[..., ImageData]] = {name: partial(_load, name) for name in SOURCES}
