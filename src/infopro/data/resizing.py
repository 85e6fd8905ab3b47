"""Another image size for a data set."""

from __future__ import annotations

from dataclasses import replace

from infopro.data._resample import resize_images, resize_masks
from infopro.data._types import (
    Augmentation,
    ImageData,
    ImageFiles,
    Images,
    MaskFiles,
    MaskTensors,
)
from infopro.errors import BadConfiguration

__all__ = ["resize"]


def resize(data: ImageData, *, image_size: int | tuple[int, int]) -> ImageData:
    """Images of these rows and columns in pixels, or of one number for both: bilinear with antialiasing.

    Masks are resized by the nearest pixel. The padding of random crops grows with the images; the crops of
    images with masks keep their size. The nuisance stays as it was, in pixels of the original size.

    Errors:
        BadConfiguration: a size below 1, or not square for images that are cut from files.
    """
    size = as_sides(image_size)
    channels, height, _ = data.image_shape
    augmentation, shape = data.augmentation, size
    if isinstance(augmentation, Augmentation):
        if data.image_shape[1:] == size and not data.has_masks:
            return data
        padding = min(round(augmentation.crop_padding * size[0] / height), min(size) - 1)
        augmentation = replace(augmentation, crop_padding=padding)
    elif augmentation.crop is not None:
        shape = augmentation.crop
    return replace(
        data,
        train=_resize(data.train, size),
        test=_resize(data.test, size),
        image_shape=(channels, *shape),
        augmentation=augmentation,
    )


def as_sides(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Rows and columns.

    Errors:
        BadConfiguration: a size below 1, or of more than two numbers.
    """
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2 or min(sides) < 1:
        allowed = "1 or more pixels, or rows and columns"
        raise BadConfiguration("image size is not positive", got=image_size, allowed=allowed)
    return sides


def square_side(image_size: int | tuple[int, int]) -> int:
    """The side of square images.

    Errors:
        BadConfiguration: as `as_sides`, or rows and columns that differ.
    """
    rows, columns = as_sides(image_size)
    if rows != columns:
        got = f"{rows} x {columns}"
        raise BadConfiguration("images in class folders are cut to squares", got=got, allowed="one number")
    return rows


def _resize(images: Images, size: tuple[int, int]) -> Images:
    if isinstance(images, ImageFiles):
        return replace(images, image_size=square_side(size))
    if isinstance(images, MaskFiles):
        return replace(images, size=size)
    resized = resize_images(images.images, size)
    if isinstance(images, MaskTensors):
        return replace(images, images=resized, masks=resize_masks(images.masks, size))
    masks = None if images.masks is None else resize_masks(images.masks, size)
    return replace(images, images=resized, masks=masks)
