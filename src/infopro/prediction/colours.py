"""Classes as colours: a palette, a mask in colours, a mask laid over its photo."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infopro.data import VOID
from infopro.errors import BadInput
from infopro.prediction._pillow import pillow
from infopro.prediction.new_files import write_picture

__all__ = ["Colour", "colour_mask", "default_colours", "overlay", "write_mask"]

Colour = tuple[int, int, int]  # red, green, blue: 0 to 255
VOID_COLOUR = (0, 0, 0)
_HUE_STEP = (5**0.5 - 1) / 2  # of the circle: any number of such steps is spread evenly
_SHADES = ((0.85, 0.95), (0.55, 1.0), (1.0, 0.65))  # saturation and value, in turn


def default_colours(num_classes: int) -> tuple[Colour, ...]:
    """Distinct hues for the classes of a set that has no colours of its own; none is black.

    Example:
        >>> default_colours(2)
        ((242, 36, 36), (115, 156, 255))
    """
    shades = [_SHADES[index % len(_SHADES)] for index in range(num_classes)]
    return tuple(_rgb(index * _HUE_STEP % 1, *shade) for index, shade in enumerate(shades))


def colour_mask(mask: NDArray[np.uint8], colours: Sequence[Colour]) -> NDArray[np.uint8]:
    """A mask in its classes' colours; void (255) is black.

    Shapes: [H, W] -> [H, W, 3].

    Errors:
        BadInput: not one class number for every pixel, or a class without a colour.

    Example:
        >>> import numpy as np
        >>> colour_mask(np.array([[1, 255]], np.uint8), default_colours(2)).tolist()
        [[[115, 156, 255], [0, 0, 0]]]
    """
    _check_mask(mask, colours)
    return _table(colours)[mask]


def overlay(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], colours: Sequence[Colour], *, opacity: float = 0.6
) -> NDArray[np.uint8]:
    """A photo with its classes' colours laid over; void pixels stay as they were.

    Shapes: [H, W, 3 or 1] and [H, W] -> [H, W, 3].

    Errors:
        BadInput: as `colour_mask`, or image and mask of different sizes.
    """
    coloured = colour_mask(mask, colours).astype(np.float32)
    if image.ndim != 3 or image.shape[:2] != mask.shape:
        raise BadInput(
            "a mask does not fit its image",
            got=f"image {list(image.shape)}, mask {list(mask.shape)}",
            allowed="[H, W, 3] and [H, W]",
        )
    share = np.where(mask == VOID, 0.0, opacity).astype(np.float32)[..., None]
    mixed = image.astype(np.float32) * (1 - share) + coloured * share
    return mixed.round().astype(np.uint8)


def write_mask(path: Path, mask: NDArray[np.uint8], colours: Sequence[Colour]) -> None:
    """A palette PNG: its pixels are the class numbers [H, W], and are shown in the classes' colours.

    Errors:
        FileExistsError: nothing is overwritten. BadInput: as `colour_mask`.
    """
    _check_mask(mask, colours)
    picture: Any = pillow().fromarray(mask)
    picture.putpalette(_table(colours).tobytes())
    write_picture(path, picture)


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def _table(colours: Sequence[Colour]) -> NDArray[np.uint8]:
    """[256, 3]: void's colour for what is no class."""
    table = np.full((256, 3), VOID_COLOUR, np.uint8)
    table[: len(colours)] = np.asarray(colours, np.uint8).reshape(-1, 3)
    return table


def _check_mask(mask: NDArray[np.uint8], colours: Sequence[Colour]) -> None:
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise BadInput("a mask holds a class number for every pixel", got=f"{mask.dtype} {list(mask.shape)}")
    classes = mask[mask != VOID]
    if classes.size and classes.max() >= len(colours):
        raise BadInput(
            "a mask holds a class without a colour",
            got=int(classes.max()),
            allowed=f"0 to {len(colours) - 1}, and {VOID} for void",
        )
