"""Smaller parts of a data set: for quick runs, and to choose settings without looking at the test images."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from infopro.data._order import balanced_order, held_out_mask
from infopro.data._seeds import counter_generator
from infopro.data._types import ImageData, Images, ImageTensors, MaskFiles, MaskTensors
from infopro.errors import BadConfiguration

__all__ = ["held_out_images", "hold_out", "limit"]


def limit(data: ImageData, *, train: int | None = None, test: int | None = None, seed: int = 0) -> ImageData:
    """The first images of a seeded, class-balanced order; None, or more than there are: all of them.

    Images with masks have no class, and are taken at random. A smaller limit gives a subset of what a larger
    one gives. The order of the data set is kept.

    Errors:
        BadConfiguration: a limit below 1.
    """
    return replace(
        data,
        train=_first(data.train, train, counter_generator("limit/train", seed)),
        test=_first(data.test, test, counter_generator("limit/test", seed)),
    )


def _first(images: Images, number: int | None, generator: torch.Generator) -> Images:
    if number is not None and number < 1:
        raise BadConfiguration("limit on the number of images is too small", got=number, allowed="1 or more")
    if number is None or number >= len(images):
        return images
    return images.take(balanced_order(_strata(images), generator)[:number].sort().values)


def hold_out(data: ImageData, *, fraction: float, seed: int = 0) -> ImageData:
    """Training images split in two: `fraction` of each class becomes `test`, the rest is `train`.

    With masks it is `fraction` of the images. For choosing settings: the real test images are in neither
    part. Images made from one source (`nuisance["source"]`, as in digits on photos) all come to lie on one
    side.

    Errors:
        BadConfiguration: a fraction that is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise BadConfiguration("held-out fraction is out of range", got=fraction, allowed="between 0 and 1")
    held = held_out_images(data.train, fraction, counter_generator("hold out", seed))
    kept, held = (mask.nonzero()[:, 0] for mask in (~held, held))
    return replace(data, train=data.train.take(kept), test=data.train.take(held))


def held_out_images(images: Images, fraction: float, generator: torch.Generator) -> Tensor:
    """Which images to hold out, bool [N] on the CPU: `fraction` of each class, and whole sources.

    Images made from one source (`nuisance["source"]`, or `sources` of masks) are held out together.

    Example:
        >>> from infopro.data import ImageTensors
        >>> images = ImageTensors(torch.zeros(8, 1, 2, 2, dtype=torch.uint8), torch.arange(8) % 2)
        >>> held_out_images(images, 0.25, torch.Generator().manual_seed(0)).sum()
        tensor(2)
    """
    labels, sources = _strata(images), _sources(images)
    if sources is None:
        return held_out_mask(labels, fraction, generator)
    sources, source_of_image = torch.unique(sources.cpu(), return_inverse=True)
    label_of_source = torch.zeros_like(sources).scatter(0, source_of_image, labels)
    return held_out_mask(label_of_source, fraction, generator)[source_of_image]


def _sources(images: Images) -> Tensor | None:
    """What each image was made from, int64 [N], where that is known."""
    if isinstance(images, MaskTensors):
        return images.sources
    return images.nuisance.get("source") if isinstance(images, ImageTensors) else None


def _strata(images: Images) -> Tensor:
    """What choices are balanced by, int64 [N] on the CPU: the class of each image, where it has one."""
    if isinstance(images, MaskTensors | MaskFiles):
        return torch.zeros(len(images), dtype=torch.int64)
    return images.labels.cpu()
