"""Another image size for a set that is held as tensors."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from infopro.data._types import ImageData, Images, ImageTensors
from infopro.errors import BadConfiguration

__all__ = ["resize"]

CHUNK = 1024  # images at once: bounds the memory of the intermediate result


def resize(data: ImageData, *, image_size: int) -> ImageData:
    """Square images of `image_size` pixels: bilinear with antialiasing; masks by nearest pixel.

    The padding of random crops grows with the images. The nuisance stays as it was, in pixels of the
    original size.

    Errors:
        BadConfiguration: a size below 1.
    """
    if image_size < 1:
        raise BadConfiguration("image size is not positive", got=image_size, allowed="1 or more pixels")
    channels, height, width = data.image_shape
    if (height, width) == (image_size, image_size):
        return data
    padding = min(round(data.augmentation.crop_padding * image_size / height), image_size - 1)
    return replace(
        data,
        train=_resize(data.train, image_size),
        test=_resize(data.test, image_size),
        image_shape=(channels, image_size, image_size),
        augmentation=replace(data.augmentation, crop_padding=padding),
    )


def _resize(images: Images, image_size: int) -> Images:
    if not isinstance(images, ImageTensors):
        return replace(images, image_size=image_size)
    size = (image_size, image_size)
    chunks = [
        F.interpolate(chunk.float(), size, mode="bilinear", antialias=True)
        .round_()
        .clamp_(0, 255)
        .to(torch.uint8)
        for chunk in torch.split(images.images, CHUNK)
    ]
    masks = images.masks
    if masks is not None:
        masks = F.interpolate(masks[:, None], size, mode="nearest-exact")[:, 0]
    return replace(images, images=torch.cat(chunks), masks=masks)
