"""The readers that `data.py` times, and the photographs that they read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

import infopro
from infopro.data import Augmentation, ImageFiles, ImageTensors

__all__ = ["Batches", "Case", "Reader", "photographs", "shortcut_error", "small_images", "write_photographs"]

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)

Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass
class Reader:
    name: str
    workers: int
    read: Callable[[], Batches]
    rates: list[float] = field(default_factory=list)  # images per second, by round


@dataclass
class Case:
    """Readers of the same images, and the step that is trained with them."""

    title: str
    step: str
    readers: list[Reader]


class Arrays(Dataset[tuple[Tensor, int]]):
    """What torchvision.datasets.CIFAR10 does with its array."""

    def __init__(self, images_NHWC: Any, transform: Callable[[Any], Tensor]):
        self.images_NHWC = images_NHWC
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images_NHWC)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images_NHWC[index])), 0


def usual(
    dataset: Dataset[tuple[Tensor, int]], *, batch_size: int, workers: int, device: torch.device
) -> Batches:
    pinned = device.type == "cuda"
    loader = DataLoader(dataset, batch_size, shuffle=True, num_workers=workers, pin_memory=pinned)
    for images, labels in loader:
        yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def ours(
    images: ImageTensors | ImageFiles,
    augmentation: Augmentation,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    shuffle: bool = True,
) -> Batches:
    return infopro.data.batches(
        images,
        batch_size=batch_size,
        mean=MEAN,
        std=STD,
        augmentation=augmentation,
        shuffle=shuffle,
        seed=0,
        epoch=1,
        device=device,
        num_workers=workers,
    )


def small_images(device: torch.device) -> Case:
    """As large as CIFAR's; what is in them changes no time."""
    number, generator = 3_200, torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (number, 3, 32, 32), dtype=torch.uint8, generator=generator)
    crop = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    final = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    arrays = Arrays(images.permute(0, 2, 3, 1).contiguous().numpy(), transforms.Compose([*crop, *final]))
    held = ImageTensors(images, torch.zeros(number, dtype=torch.int64)).to(device)
    augmentation = Augmentation(crop_padding=4, padding_mode="zero", flip=True)
    options = {"batch_size": 128, "device": device}
    readers = [Reader("usual", n, partial(usual, arrays, workers=n, **options)) for n in (0, 2)]
    readers += [
        Reader("infopro, uint8 on the device", 0, partial(ours, held, augmentation, workers=0, **options))
    ]
    return Case("CIFAR's size, 32 x 32", "ResNet-32", readers)


def photographs(title: str, root: Path, number: int, device: torch.device) -> Case:
    """`number` images of 224 x 224 an epoch, from the JPEGs of a folder of class folders."""
    crop = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()]
    final = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    folder = datasets.ImageFolder(str(root), transforms.Compose([*crop, *final]))
    folder.samples = (folder.samples * (number // len(folder.samples) + 1))[:number]
    paths, labels = zip(*folder.samples, strict=True)
    files = ImageFiles(tuple(map(Path, paths)), torch.tensor(labels), image_size=224)
    held = infopro.data.image_folder(root, image_size=224).train.to(device)
    held = held.take(torch.arange(number) % len(held))
    augmentation = Augmentation(flip=True, random_resized_crop=True)
    options = {"batch_size": 8, "device": device}
    readers = []
    for workers in (0, 2):
        readers += [
            Reader("usual", workers, partial(usual, folder, workers=workers, **options)),
            Reader("infopro", workers, partial(ours, files, augmentation, workers=workers, **options)),
        ]
    readers += [
        Reader("infopro, decoded once to uint8", 0, partial(ours, held, augmentation, workers=0, **options))
    ]
    return Case(f"{title} to 224 x 224", "ResNet-50", readers)


def write_photographs(root: Path, size: tuple[int, int], number: int) -> Path:
    """JPEGs in two class folders: parts of scikit-learn's two photographs, enlarged."""
    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    draws = torch.rand(number, 3, generator=torch.Generator().manual_seed(0)).tolist()
    for place, (zoom, across, down) in enumerate(draws):
        photo = photos[place % 2]
        width, height = (side * (0.6 + 0.4 * zoom) for side in photo.size)
        left, top = across * (photo.width - width), down * (photo.height - height)
        folder = root / f"class-{place % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        photo = photo.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
        photo.save(folder / f"{place}.jpg", quality=90)
    return root


def shortcut_error(root: Path) -> str:
    """By how much crops of four JPEGs differ from those of the same pixels, stored without loss."""
    jpegs = sorted(root.rglob("*.jpg"))[:4]
    for path in jpegs:
        with Image.open(path) as image:
            image.save(path.with_suffix(".bmp"))
    augmentation = Augmentation(random_resized_crop=True)
    options = {"batch_size": len(jpegs), "workers": 0, "device": torch.device("cpu")}
    found = []
    for paths in (jpegs, [path.with_suffix(".bmp") for path in jpegs]):
        files = ImageFiles(tuple(paths), torch.zeros(len(paths), dtype=torch.int64), image_size=224)
        images, _ = next(ours(files, augmentation, shuffle=False, **options))
        found.append(images * 255 * torch.tensor(STD).view(-1, 1, 1))
    difference = (found[0] - found[1]).abs()
    return f"by {difference.mean():.2f} of 255 levels on average, {difference.max():.0f} at most"
