"""Digits on photos, with a class for every pixel: which digit, or background."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from infopro.data._bad_images import BadImages
from infopro.data._mask_types import JointAugmentation, MaskTensors
from infopro.data._types import ImageData, Images, ImageTensors
from infopro.data.digits_on_photos import digits_on_photos

__all__ = ["SETS", "digits_on_photos_masks"]

BACKGROUND = 10  # so that a pixel of the digit d has class d
COLOURS = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75),
    (227, 119, 194), (127, 127, 127), (188, 189, 34), (23, 190, 207), (0, 0, 0),
)  # fmt: skip


def digits_on_photos_masks(
    *, train_size: int = 5700, test_size: int = 2000, seed: int = 0, holdout: bool = False
) -> ImageData:
    """The embedded data set `digits_on_photos` for segmentation: a pixel's class is its digit, or 10 off it.

    Images, parts and arguments are those of `digits_on_photos`; nothing is void. Shapes: images uint8
    [N, 3, 32, 32], masks uint8 [N, 32, 32], sources int64 [N]. The other nuisance is left out.

    Errors:
        BadConfiguration: a size below 1. MissingPackage: scikit-learn or Pillow is not installed.

    Example:
        >>> data = digits_on_photos_masks(train_size=100, test_size=20)
        >>> data.train.masks.shape, data.class_names[-1]
        (torch.Size([100, 32, 32]), 'background')
    """
    digits = digits_on_photos(train_size=train_size, test_size=test_size, seed=seed, holdout=holdout)
    return ImageData(
        name="digits-on-photos-masks",
        train=_with_classes(digits.train),
        test=_with_classes(digits.test),
        num_classes=BACKGROUND + 1,
        class_names=(*digits.class_names, "background"),
        mean=digits.mean,
        std=digits.std,
        image_shape=digits.image_shape,
        augmentation=JointAugmentation(scale=(0.8, 1.25)),
        colours=COLOURS,
    )


def _with_classes(images: Images) -> MaskTensors:
    assert isinstance(images, ImageTensors) and images.masks is not None
    classes = torch.where(images.masks == 1, images.labels[:, None, None], BACKGROUND)
    return MaskTensors(images.images, classes.to(torch.uint8), images.nuisance["source"])


def _load(*, seed: int, bad_images: BadImages, **unused: Any) -> ImageData:
    bad_images.require_unread("digits-on-photos-masks")
    return digits_on_photos_masks(seed=seed)


SETS: dict[str, Callable[..., ImageData]] = {"digits-on-photos-masks": _load}
