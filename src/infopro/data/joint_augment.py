"""Augmentation of an image together with its mask, by torchvision's kernels."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from infopro.data._mask_types import VOID, JointAugmentation
from infopro.data._packages import import_package

__all__ = ["augment_pair"]

BRIGHTNESS, CONTRAST, SATURATION = 0.125, 0.5, 0.5  # factors from 1 - these to 1 + these
HUE = 0.05  # of the circle, either way


def augment_pair(
    image: Tensor,
    mask: Tensor,
    augmentation: JointAugmentation,
    *,
    fill: Sequence[int],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """An image and its mask, scaled, cropped and flipped alike, the image's colours changed.

    Shapes: image uint8 [C, H, W] with C of 1 or 3 and mask uint8 [H, W] in; [C, rows, columns] and [rows,
    columns] of the crop out, of the same size where there is none. The scale is uniform between its least and
    most; images are resized bilinearly with antialiasing, masks by the nearest pixel. Where the crop is
    larger, the image comes to lie at a random place in it, `fill` (C values, 0 to 255) and VOID around. The
    colours are changed within the ranges that torchvision has for SSD (Liu et al. 2016): brightness 12.5 %,
    contrast and saturation 50 %, hue 5 % of the circle. Deviation: always, and always in this order.

    All numbers are drawn from `generator`, a CPU one, and not from torch's global stream, as torchvision's
    own transforms would; the geometry does not depend on whether colours change.

    Errors:
        MissingPackage: torchvision is not installed.

    Example:
        >>> image, mask = torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.uint8)
        >>> augmentation = JointAugmentation(crop=(4, 6), flip=True)
        >>> _, mask = augment_pair(image, mask, augmentation, fill=(9, 9, 9), generator=torch.Generator())
        >>> mask.shape, int((mask == 255).sum())
        (torch.Size([4, 6]), 8)
    """
    purpose = "the augmentation of masks"
    transforms = import_package("torchvision.transforms.v2", extra="vision", purpose=purpose)
    scale, down, right, flip, *colours = torch.rand(8, generator=generator, dtype=torch.float64).tolist()
    rows, columns = size = augmentation.crop or (mask.shape[0], mask.shape[1])
    image, masks = _scaled(transforms, image, mask[None], _between(scale, *augmentation.scale))
    top, above = _place(masks.shape[1] - rows, down)
    left, before = _place(masks.shape[2] - columns, right)
    image, masks = (each[:, top : top + rows, left : left + columns] for each in (image, masks))
    if augmentation.flip and flip < 0.5:
        image, masks = image.flip(2), masks.flip(2)
    if augmentation.colour:
        image = _coloured(transforms.functional, image, colours)
    if tuple(masks.shape[1:]) != size:
        image = _padded(image, fill, size, above, before)
        masks = _padded(masks, [VOID], size, above, before)
    return image, masks[0]


def _place(free: int, draw: float) -> tuple[int, int]:
    """Where a crop begins in the image, and the image in the crop; `free` pixels more has the image."""
    start = int(draw * (abs(free) + 1))
    return (start, 0) if free >= 0 else (0, start)


def _padded(image: Tensor, fill: Sequence[int], size: tuple[int, int], above: int, before: int) -> Tensor:
    """[C, *size]. By number and not by a tensor of the colour, for which a GPU would be waited."""
    canvas = torch.stack([image.new_full(size, value) for value in fill])
    canvas[:, above : above + image.shape[1], before : before + image.shape[2]] = image
    return canvas


def _between(draw: float, least: float, most: float) -> float:
    return least + (most - least) * draw


def _scaled(transforms: ModuleType, image: Tensor, masks: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    size = [max(1, round(side * factor)) for side in masks.shape[1:]]
    # not resize_mask, whose pixels are not where the image's are
    masks = transforms.functional.resize_image(masks, size, transforms.InterpolationMode.NEAREST_EXACT)
    return transforms.functional.resize_image(image, size, antialias=True), masks


def _coloured(functional: ModuleType, image: Tensor, draws: Sequence[float]) -> Tensor:
    brightness, contrast, saturation, hue = draws
    image = functional.adjust_brightness_image(image, _between(brightness, 1 - BRIGHTNESS, 1 + BRIGHTNESS))
    image = functional.adjust_contrast_image(image, _between(contrast, 1 - CONTRAST, 1 + CONTRAST))
    image = functional.adjust_saturation_image(image, _between(saturation, 1 - SATURATION, 1 + SATURATION))
    return _turned(image, _between(hue, -HUE, HUE)) if len(image) == 3 else image


def _turned(image: Tensor, turn: float) -> Tensor:
    """Another hue, at the same value and saturation; `turn` is a share of the circle.

    Not torchvision's, which makes a table on the CPU, for which a GPU would be waited at every image.
    """
    colours = image.float()
    red, green, blue = colours
    value = colours.amax(0)
    chroma = value - colours.amin(0)
    some = chroma.clamp(min=1)  # whole numbers: 0 for grey alone, which has no hue
    hue = torch.where(value == green, 2 + (blue - red) / some, 4 + (red - green) / some)
    hue = torch.where(value == red, (green - blue) / some, hue) + 6 * turn  # in sixths of the circle

    def channel(first: int) -> Tensor:
        place = (hue + first) % 6
        return value - chroma * torch.minimum(place, 4 - place).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)]).round_().to(torch.uint8)
