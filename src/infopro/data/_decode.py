"""Image files to uint8 tensors."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from math import ceil
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from infopro.data._messages import one_line, quoted
from infopro.data._packages import import_package
from infopro.data.augment import random_boxes
from infopro.errors import BadData, BadImage

__all__ = [
    "MAX_PIXELS",
    "central_crop",
    "class_values",
    "extent",
    "random_crop",
    "require_content",
    "require_decodable",
    "whole_image",
]

MAX_PIXELS = 178_956_970  # of more nothing is decoded: so many take 0.7 GB. Pillow draws the line here, too
LONGEST = 16  # an image that is longer, in units of its shorter side, loses its ends before it is resized
# by content, whatever the name says. No EPS: Pillow starts Ghostscript for it
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "ICO", "TGA", "AVIF", "JPEG2000")
STEPS = {"L;2": 85, "L;4": 17}  # Pillow spreads the values of grey images of 2 and 4 bits over 0 to 255
SPARE = 2  # a JPEG is decoded at 1/2, 1/4 or 1/8 where that leaves this many times the pixels a side


def central_crop(path: Path, size: int) -> Tensor:
    """uint8 [3, size, size]: the shorter side resized to size * 256 / 224, then the middle.

    Errors:
        BadImage: not an image, truncated or otherwise broken; the message names the file.
    """
    with _opened(path) as image:
        shorter = round(size * 256 / 224)
        width, height = image.size
        if max(width, height) > LONGEST * min(width, height):
            return _to_tensor(_long_middle(_decoded(image), shorter, size))
        scale = shorter / min(width, height)
        width, height = max(shorter, round(width * scale)), max(shorter, round(height * scale))
        image.draft(None, (SPARE * width, SPARE * height))
        left, top = (width - size) // 2, (height - size) // 2
        resized = _decoded(image).resize((width, height), _pillow().Resampling.BILINEAR)
        return _to_tensor(resized.crop((left, top, left + size, top + size)))


def _long_middle(image: Any, shorter: int, size: int) -> Any:
    """The middle of a very long image: resized as a whole, it could take all memory."""
    width, height = image.size
    longest = LONGEST * min(width, height)
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    part = image.crop((left, top, width - left, height - top))
    scale = shorter / min(width, height)
    wide, high = (max(shorter, round(side * scale)) for side in part.size)
    resized = part.resize((wide, high), _pillow().Resampling.BILINEAR)
    left, top = (wide - size) // 2, (high - size) // 2
    return resized.crop((left, top, left + size, top + size))


def random_crop(path: Path, size: int, generator: torch.Generator) -> Tensor:
    """uint8 [3, size, size]: a random box of 8 to 100 % of the area, resized.

    Errors:
        BadImage: as `central_crop`.
    """
    with _opened(path) as image:
        width, height = image.size
        boxes = random_boxes(1, height=height, width=width, generator=generator)
        top, left, box_height, box_width = (int(side) for side in boxes)
        image.draft(None, (ceil(SPARE * size * width / box_width), ceil(SPARE * size * height / box_height)))
        pixels = _decoded(image)
        # the box in what was decoded; multiplied first, so that it cannot end a rounding error outside
        box = (
            left * pixels.width / width,
            top * pixels.height / height,
            (left + box_width) * pixels.width / width,
            (top + box_height) * pixels.height / height,
        )
        return _to_tensor(pixels.resize((size, size), _pillow().Resampling.BILINEAR, box=box))


def whole_image(path: Path, content: IO[bytes] | None = None) -> Tensor:
    """uint8 [3, H, W] at its own size; `content` holds the bytes where the path lies in an archive.

    Errors:
        BadImage: as `central_crop`.
    """
    with _opened(path, content) as image:
        return _to_tensor(_decoded(image))


def class_values(path: Path, content: IO[bytes] | None = None) -> np.ndarray[Any, Any]:
    """Whole numbers [H, W] as the file of a mask holds them: grey values, or indices into a palette.

    Errors:
        BadImage: as `central_crop`. BadData: an image in colours, with transparency or of fractions.
    """
    with _opened(path, content) as image:
        mode, step = image.mode, STEPS.get(_raw_mode(image), 1)
        image.load()  # numpy would take an image that cannot be decoded for an object
        values = np.asarray(image)
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise BadData(
            f"{quoted(path)} is no mask: a mask holds class numbers, not colours",
            got=f"mode {mode}",
            allowed="one grey value or palette index a pixel",
            remedy="replace each colour by the number of its class",
        )
    return values // step


def extent(path: Path, content: IO[bytes] | None = None) -> tuple[int, int]:
    """Rows and columns, from the head of the file.

    Errors:
        BadImage: as `central_crop`.
    """
    with _opened(path, content) as image:
        return image.height, image.width


def require_content(path: Path) -> None:
    """Look whether there is a file of one byte at least.

    Errors:
        BadImage: there is not.
    """
    try:
        if not os.stat(path).st_size:
            raise OSError("the file is empty")
    except OSError as error:
        raise _unreadable(path, error) from error


def require_decodable(path: Path) -> None:
    """Decode an image, a JPEG at an eighth of its size, and forget it.

    Errors:
        BadImage: as `central_crop`.
    """
    with _opened(path) as image:
        image.draft(None, (1, 1))
        _decoded(image)


def _raw_mode(image: Any) -> str:
    return next((str(tile[3]) for tile in image.tile), "")


@contextmanager
def _opened(path: Path, content: IO[bytes] | None = None) -> Iterator[Any]:
    """The file as a Pillow image that is not yet decoded."""
    images = _pillow()
    try:
        if content is None:
            _require_file(path)
        with images.open(path if content is None else content, formats=_formats()) as image:
            _require_bounded(image)
            yield image
    except BadData:  # of what is in the image, said where it was found
        raise
    except Exception as error:  # decoders raise whatever they like
        raise _unreadable(path, error) from error


def _require_file(path: Path) -> None:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a file")  # opening a pipe would wait for ever
    if not status.st_size:
        raise OSError("the file is empty")


def _require_bounded(image: Any) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise OSError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS}")


def _unreadable(path: Path, error: Exception) -> BadImage:
    images = _pillow()
    # the path is named anyway
    reason = (isinstance(error, OSError) and error.strerror) or one_line(error)
    if isinstance(error, images.UnidentifiedImageError):
        reason = "not an image"
    if isinstance(error, images.DecompressionBombError):
        reason = f"more than {MAX_PIXELS} pixels"
    what, files = f"cannot read the image ({reason})", {str(path): reason}
    return BadImage(what, got=quoted(path), remedy="repair or remove it", files=files)


@cache
def _formats() -> tuple[str, ...]:
    images = _pillow()
    images.init()
    return tuple(name for name in FORMATS if name in images.OPEN)


def _decoded(image: Any) -> Any:
    """In RGB, whatever it was: grey, palette, CMYK, 16 bits, with transparency, which is dropped."""
    image.load()
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise OSError("its pixels are fractions, and nothing says which of them is white")
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip at 255
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return _pillow().fromarray(grey).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # without this step Pillow warns
    return image.convert("RGB")


def _pillow() -> Any:
    return import_package("PIL.Image", extra="vision", purpose="reading image files")


def _to_tensor(image: Any) -> Tensor:
    """[3, H, W], in memory as Pillow has it: channels last."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
