"""What every data set is: a train and a test part, their classes, and how their images are prepared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from infopro.data._mask_types import VOID, JointAugmentation, MaskFiles, MaskTensors
from infopro.errors import BadConfiguration, BadInput

__all__ = [
    "VOID",
    "Augmentation",
    "ImageData",
    "ImageFiles",
    "ImageTensors",
    "Images",
    "JointAugmentation",
    "MaskFiles",
    "MaskTensors",
]


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied; the default leaves them as they are."""

    crop_padding: int = 0  # pixels added on each side before a random crop of the first size
    padding_mode: Literal["reflect", "zero"] = "reflect"
    flip: bool = False  # left to right, for half of the images
    random_resized_crop: bool = False  # 8 to 100 % of the area, enlarged to the full size

    def __post_init__(self) -> None:
        if self.crop_padding < 0:
            raise BadConfiguration(
                "crop padding is negative", got=self.crop_padding, allowed="0 or more pixels"
            )
        if self.padding_mode not in ("reflect", "zero"):
            raise BadConfiguration(
                "unknown padding mode", got=repr(self.padding_mode), allowed="reflect, zero"
            )


@dataclass(frozen=True, eq=False)
class ImageTensors:
    """One part of a data set, held as one tensor."""

    images: Tensor  # uint8 [N, C, H, W]
    labels: Tensor  # int64 [N]
    masks: Tensor | None = None  # uint8 [N, H, W]: a class for every pixel
    nuisance: Mapping[str, Tensor] = field(default_factory=dict)  # each [N]: what varies but is not the class

    def __post_init__(self) -> None:
        if self.images.dim() != 4 or self.images.dtype != torch.uint8:
            got = f"{self.images.dtype} {list(self.images.shape)}"
            raise BadInput("images are not one uint8 tensor", got=got, allowed="uint8 [N, C, H, W]")
        lengths = {
            "labels": self.labels,
            **({} if self.masks is None else {"masks": self.masks}),
            **self.nuisance,
        }
        for name, tensor in lengths.items():
            if len(tensor) != len(self.images):
                raise BadInput(
                    f"{name} and images differ in number", got=f"{len(tensor)} and {len(self.images)}"
                )

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> ImageTensors:
        """The same images on a device, where they are then augmented."""
        return ImageTensors(
            images=self.images.to(device),
            labels=self.labels.to(device),
            masks=None if self.masks is None else self.masks.to(device),
            nuisance={name: values.to(device) for name, values in self.nuisance.items()},
        )

    def take(self, indices: Tensor) -> ImageTensors:
        """The images at these positions, int64 [M], in this order."""
        indices = indices.to(self.images.device)
        return ImageTensors(
            images=self.images[indices],
            labels=self.labels[indices],
            masks=None if self.masks is None else self.masks[indices],
            nuisance={name: values[indices] for name, values in self.nuisance.items()},
        )


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """One part of a data set that is read from its files batch by batch: large images."""

    paths: tuple[Path, ...]
    labels: Tensor  # int64 [N], on the CPU
    image_size: int  # height and width of the square images that are made

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.paths):
            raise BadInput(
                "labels and files differ in number", got=f"{len(self.labels)} and {len(self.paths)}"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def to(self, device: torch.device | str) -> ImageFiles:
        """Itself: images reach the device batch by batch."""
        return self

    def take(self, indices: Tensor) -> ImageFiles:
        """The files at these positions, int64 [M], in this order."""
        chosen = indices.cpu()
        return replace(self, paths=tuple(self.paths[i] for i in chosen.tolist()), labels=self.labels[chosen])


Images = ImageTensors | ImageFiles | MaskTensors | MaskFiles


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set: two parts, the classes, the normalisation and the augmentation it is trained with.

    Errors:
        BadInput: a label or mask value outside 0..num_classes-1, one part with and one without masks, or
        class
            names, colours, mean or std of another number.
    """

    name: str
    train: Images
    test: Images
    num_classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]  # per channel, of images in [0, 1]
    std: tuple[float, ...]
    image_shape: tuple[
        int, int, int
    ]  # C, H, W that the network is trained on: of the crop, where there is one
    augmentation: Augmentation | JointAugmentation = Augmentation()
    colours: tuple[
        tuple[int, int, int], ...
    ] = ()  # of the classes in pictures of masks, 0 to 255; () for labels
    multiple_of: int = 1  # images with masks are padded to such sides before the network is tested on them
    smallest: int = 1  # likewise: the least side
    skipped: Mapping[str, str] = field(default_factory=dict)  # files left out as unreadable, and why

    @property
    def has_masks(self) -> bool:
        """Whether every pixel has a class, not every image."""
        return isinstance(self.train, MaskTensors | MaskFiles)

    def __post_init__(self) -> None:
        if len(self.class_names) != self.num_classes:
            got = f"{len(self.class_names)} names, {self.num_classes} classes"
            raise BadInput(f"the classes of {self.name} are not all named", got=got)
        if not len(self.mean) == len(self.std) == self.image_shape[0]:
            got = f"{len(self.mean)} means, {len(self.std)} deviations, {self.image_shape[0]} channels"
            raise BadInput(f"the normalisation of {self.name} does not fit its channels", got=got)
        if self.has_masks:
            self._check_dense()
        for part, images in (("train", self.train), ("test", self.test)):
            if isinstance(images, MaskTensors | MaskFiles) != self.has_masks:
                raise BadInput(f"only one part of {self.name} has masks", allowed="both or none")
            if isinstance(images, MaskTensors | MaskFiles):
                _check_masks(f"{part} masks of {self.name}", images, self.num_classes)
            else:
                _check_labels(f"{part} labels of {self.name}", images.labels, self.num_classes)

    def _check_dense(self) -> None:
        if not 1 <= self.num_classes <= VOID:
            what = f"number of classes of {self.name} is out of range"
            raise BadInput(what, got=self.num_classes, allowed=f"1 to {VOID}")
        if self.colours and len(self.colours) != self.num_classes:
            got = f"{len(self.colours)} colours, {self.num_classes} classes"
            raise BadInput(f"the classes of {self.name} do not all have a colour", got=got)
        if isinstance(self.augmentation, Augmentation) and self.augmentation != Augmentation():
            raise BadInput(
                f"the augmentation of {self.name} leaves masks behind", allowed="JointAugmentation"
            )


def _check_masks(what: str, images: MaskTensors | MaskFiles, num_classes: int) -> None:
    if isinstance(images, MaskTensors):
        if not images.masks.numel():
            return
        highest = int((images.masks + 1).max()) - 1  # in bytes 255 + 1 = 0: VOID is never the highest
    else:
        highest = max(value for value in (*images.classes.values(), -1) if value != VOID)
    if highest >= num_classes:
        allowed = f"0 to {num_classes - 1}, or {VOID} where there is no class"
        raise BadInput(f"{what} are out of range", got=highest, allowed=allowed)


def _check_labels(what: str, labels: Tensor, num_classes: int) -> None:
    allowed = f"0 to {num_classes - 1}"
    if labels.dtype != torch.int64 or labels.dim() != 1:
        raise BadInput(
            f"{what} are not class numbers", got=f"{labels.dtype} {list(labels.shape)}", allowed="int64 [N]"
        )
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        raise BadInput(f"{what} are out of range", got=int(outside[0]), allowed=allowed)
