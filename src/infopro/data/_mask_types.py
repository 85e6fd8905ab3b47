"""Parts of a data set that have a class for every pixel, and how they are varied."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from infopro.errors import BadConfiguration, BadInput
from infopro.tasks import VOID

__all__ = ["VOID", "JointAugmentation", "MaskFiles", "MaskTensors", "padded_side"]


def padded_side(side: int, *, multiple_of: int, smallest: int = 1) -> int:
    """How long a side becomes for a network that wants multiples of a number, and no less than another.

    Example:
        >>> padded_side(360, multiple_of=32), padded_side(64, multiple_of=16, smallest=128)
        (384, 128)
    """
    return -(-max(side, smallest) // multiple_of) * multiple_of


@dataclass(frozen=True)
class JointAugmentation:
    """How training images are varied together with their masks; the default leaves them as they are.

    Errors:
        BadConfiguration: a crop below one pixel, or a scale that is not 0 < least <= most.
    """

    crop: tuple[int, int] | None = None  # rows, columns; None: the size of the images, which must be common
    scale: tuple[float, float] = (1.0, 1.0)  # least and most: enlarged by a factor between them, then cropped
    flip: bool = False  # left to right, for half of the images
    colour: bool = False  # brightness, contrast, saturation and hue of the image

    def __post_init__(self) -> None:
        problems = []
        if self.crop is not None and not (len(self.crop) == 2 and min(self.crop) >= 1):
            problems.append(f"crop {self.crop}, not two sides of 1 pixel or more")
        if not (len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1] < math.inf):
            problems.append(f"scale {self.scale}, not 0 < least <= most")
        if problems:
            raise BadConfiguration("augmentation is out of range", got="; ".join(problems))

    @property
    def varies(self) -> bool:
        """Whether two epochs can differ in anything but their order."""
        return self != JointAugmentation()


@dataclass(frozen=True, eq=False)
class MaskTensors:
    """One part of a data set with a class for every pixel, held as two tensors."""

    images: Tensor  # uint8 [N, C, H, W]
    masks: Tensor  # uint8 [N, H, W]: the class, or VOID
    sources: Tensor | None = None  # int64 [N]: what an image was made from, where several were made from it

    def __post_init__(self) -> None:
        images, masks = self.images, self.masks
        if images.dim() != 4 or images.dtype != torch.uint8:
            got = f"{images.dtype} {list(images.shape)}"
            raise BadInput("images are not one uint8 tensor", got=got, allowed="uint8 [N, C, H, W]")
        wanted = [len(images), *images.shape[2:]]
        if masks.dtype != torch.uint8 or list(masks.shape) != wanted:
            got = f"{masks.dtype} {list(masks.shape)}"
            raise BadInput("masks do not fit their images", got=got, allowed=f"uint8 {wanted}")
        if self.sources is not None and len(self.sources) != len(images):
            got = f"{len(self.sources)} and {len(images)}"
            raise BadInput("sources and images differ in number", got=got)

    @property
    def common_size(self) -> tuple[int, int]:
        """Rows and columns of every image."""
        height, width = self.images.shape[2:]
        return height, width

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> MaskTensors:
        """The same images on a device, where they are then varied."""
        sources = None if self.sources is None else self.sources.to(device)
        return MaskTensors(self.images.to(device), self.masks.to(device), sources)

    def take(self, indices: Tensor) -> MaskTensors:
        """The images at these positions, int64 [M], in this order."""
        indices = indices.to(self.images.device)
        sources = None if self.sources is None else self.sources[indices]
        return MaskTensors(self.images[indices], self.masks[indices], sources)


@dataclass(frozen=True, eq=False)
class MaskFiles:
    """One part of a data set with a class for every pixel, read from its files batch by batch."""

    root: Path  # a folder, or a zip archive
    image_files: tuple[str, ...]  # relative to the folder, or members of the archive
    mask_files: tuple[str, ...]
    classes: Mapping[int, int]  # from a value in a mask's file to its class, or VOID; other values are errors
    size: tuple[int, int] | None = None  # rows, columns that both are brought to; None: their own
    own_size: tuple[int, int] | None = None  # rows, columns of all files; None: they differ

    def __post_init__(self) -> None:
        if len(self.image_files) != len(self.mask_files):
            got = f"{len(self.image_files)} and {len(self.mask_files)}"
            raise BadInput("images and masks differ in number", got=got)

    @property
    def common_size(self) -> tuple[int, int] | None:
        """Rows and columns of every image; None where they differ."""
        return self.size or self.own_size

    def __len__(self) -> int:
        return len(self.image_files)

    def to(self, device: torch.device | str) -> MaskFiles:
        """Itself: images reach the device batch by batch."""
        return self

    def take(self, indices: Tensor) -> MaskFiles:
        """The files at these positions, int64 [M], in this order."""
        chosen = indices.tolist()
        return replace(
            self,
            image_files=tuple(self.image_files[i] for i in chosen),
            mask_files=tuple(self.mask_files[i] for i in chosen),
        )
