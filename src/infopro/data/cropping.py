"""Crops of images and masks to train on."""

from __future__ import annotations

from dataclasses import replace

from infopro.data._types import ImageData, JointAugmentation
from infopro.errors import BadConfiguration

__all__ = ["crop"]


def crop(
    data: ImageData, *, size: tuple[int, int] | None = None, scale: tuple[float, float] | None = None
) -> ImageData:
    """The same data, trained on crops of `size` (rows, columns) after scaling by `scale` (least, most).

    What is None stays as the data set has it. A crop may be larger than an image, which then is padded: with
    the mean colour, and with VOID in the mask. Test images stay whole. `image_shape` becomes that of the
    crop.

    Errors:
        BadConfiguration: a data set without masks, a crop below one pixel, a scale that is out of order.

    Example:
        >>> from infopro.data import digits_on_photos_masks
        >>> crop(digits_on_photos_masks(train_size=8, test_size=4), size=(24, 20)).image_shape
        (3, 24, 20)
    """
    if not data.has_masks:
        raise BadConfiguration(
            "crop and scale are for data sets with masks", got=data.name, remedy="leave them out"
        )
    augmentation = data.augmentation
    if not isinstance(augmentation, JointAugmentation):
        augmentation = JointAugmentation()
    if scale is not None:
        augmentation = replace(augmentation, scale=(scale[0], scale[1]))
    if size is None:
        return replace(data, augmentation=augmentation)
    augmentation = replace(augmentation, crop=(size[0], size[1]))
    return replace(data, augmentation=augmentation, image_shape=(data.image_shape[0], size[0], size[1]))
