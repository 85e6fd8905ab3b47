"""Image files to uint8 tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infopro.data._messages import one_line, quoted
from infopro.data._packages import import_package
from infopro.data.augment import random_boxes
from infopro.errors import BadData

__all__ = ["central_crop", "random_crop", "read_image"]


def read_image(path: Path) -> Any:
    """The file as a Pillow image in RGB, whatever it was: grey, palette, CMYK, with transparency, 16 bits.

    Errors:
        BadData: not an image, truncated or otherwise broken; the message names the file.
    """
    images = import_package("PIL.Image", extra="vision", purpose="reading image files")
    try:
        with images.open(path) as image:
            image.load()
            return _to_rgb(image, images)
    except Exception as error:  # decoders raise whatever they like
        reason = "not an image" if isinstance(error, images.UnidentifiedImageError) else one_line(error)
        raise BadData(
            f"cannot read the image ({reason})", got=quoted(path), remedy="repair or remove it"
        ) from error


def _to_rgb(image: Any, images: Any) -> Any:
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip at 255
        return images.fromarray(
            (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        ).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # without this step Pillow warns
    return image.convert("RGB")


def central_crop(image: Any, size: int) -> Tensor:
    """uint8 [3, size, size]: the shorter side resized to size * 256 / 224, then the middle."""
    shorter = round(size * 256 / 224)
    width, height = image.size
    scale = shorter / min(width, height)
    width, height = max(shorter, round(width * scale)), max(shorter, round(height * scale))
    left, top = (width - size) // 2, (height - size) // 2
    return _to_tensor(image.resize((width, height), _bilinear()).crop((left, top, left + size, top + size)))


def random_crop(image: Any, size: int, generator: torch.Generator) -> Tensor:
    """uint8 [3, size, size]: a random box of 8 to 100 % of the area, resized."""
    width, height = image.size
    boxes = random_boxes(1, height=height, width=width, generator=generator)
    top, left, box_height, box_width = (int(side) for side in boxes)
    box = (left, top, left + box_width, top + box_height)
    return _to_tensor(image.resize((size, size), _bilinear(), box=box))


def _bilinear() -> Any:
    return import_package("PIL.Image", extra="vision", purpose="reading image files").Resampling.BILINEAR


def _to_tensor(image: Any) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
