"""Pictures to look at: with a legend, or panels side by side with captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infopro.prediction._pillow import pillow
from infopro.prediction.colours import Colour, colour_mask

__all__ = ["segmentation_panels", "side_by_side", "with_legend"]

SMALLEST_LETTERS = 14  # pixels
LETTERS_PER_SIDE = 60  # of a large picture: it is looked at reduced
SMALLEST_PICTURE = 256  # pixels of the longer side; smaller ones are enlarged a whole number of times
SMALLEST_PANEL = 128  # likewise
PORTRAIT = 1.2  # height to width from which on the legend stands beside the picture
PAPER, INK, FRAME = (255, 255, 255), (20, 20, 20), (120, 120, 120)

Legend = Sequence[tuple[str, Colour]]


def with_legend(picture: NDArray[np.uint8], legend: Legend) -> NDArray[np.uint8]:
    """A picture with names and their colours below it, or beside it where it is upright.

    A picture below 256 pixels is enlarged a whole number of times. Letters grow with the picture, and the
    paper is made wide enough for every name.

    Shapes: [H, W, 3] -> [H', W', 3], at least as large.

    Example:
        >>> import numpy as np
        >>> with_legend(np.zeros((300, 400, 3), np.uint8), [("road", (128, 64, 128))]).shape
        (328, 400, 3)
    """
    image = _enlarged(pillow().fromarray(picture), SMALLEST_PICTURE)
    if not legend:
        return np.array(image)
    letters = max(SMALLEST_LETTERS, round(max(image.size) / LETTERS_PER_SIDE))
    entries = [(_one_line(name), colour) for name, colour in legend]
    font = _font(letters)
    widths = [ceil(font.getlength(name)) + 3 * letters for name, _ in entries]
    beside = image.height > PORTRAIT * image.width
    rows = image.height // (2 * letters) if beside else _fewest_rows(widths, image.width)
    table = _legend_table(entries, _columns(widths, max(1, rows)), max(1, rows), letters)
    return np.array(_joined([image, table], beside=beside))


def side_by_side(
    panels: Sequence[tuple[str, NDArray[np.uint8]]], *, height: int | None = None
) -> NDArray[np.uint8]:
    """Pictures in a row, a caption above each, all of one height.

    Args:
        panels: caption and picture, [H, W, 3] or grey [H, W] or [H, W, 1]; sizes may differ.
        height: of the pictures, in pixels; if not given, the tallest one's, enlarged a whole number of times
            where that is below 128. What is enlarged shows its pixels.

    Shapes: ... -> [H', W', 3].

    Example:
        >>> import numpy as np
        >>> photo = np.zeros((128, 100, 3), np.uint8)
        >>> side_by_side([("image", photo), ("twice as tall", photo.repeat(2, 0))]).shape
        (284, 307, 3)
    """
    pictures = [_as_image(picture) for _, picture in panels]
    tallest = max(picture.height for picture in pictures)
    height = height or tallest * ceil(SMALLEST_PANEL / tallest)
    letters = max(SMALLEST_LETTERS, round(height / 30))
    captioned = [
        _captioned(_of_height(picture, height), _one_line(caption), letters)
        for picture, (caption, _) in zip(pictures, panels, strict=True)
    ]
    return np.array(_joined(captioned, beside=True, gap=letters // 2))


def segmentation_panels(
    image: NDArray[np.uint8],
    *,
    truth: NDArray[np.uint8] | None = None,
    predictions: Mapping[str, NDArray[np.uint8]],
    colours: Sequence[Colour],
    reconstructions: Mapping[str, NDArray[np.uint8]] | None = None,
    height: int | None = None,
) -> NDArray[np.uint8]:
    """One row: image, ground truth, predictions, such as each module's own, and reconstructions.

    Args:
        image: [H, W, 3].
        truth: class numbers [H, W]; 255 is void, and black.
        predictions: by caption, class numbers [h, w] of any size.
        colours: one a class.
        reconstructions: by caption, [h, w, 3] of any size.
        height: see `side_by_side`.

    Example:
        >>> import numpy as np
        >>> photo, mask = np.zeros((200, 200, 3), np.uint8), np.zeros((200, 200), np.uint8)
        >>> masks = {"prediction": mask, "module 1": mask[::8, ::8]}
        >>> segmentation_panels(photo, truth=mask, predictions=masks, colours=[(9, 9, 9)]).shape
        (228, 821, 3)
    """
    masks = {**({} if truth is None else {"ground truth": truth}), **predictions}
    panels = [("image", image)]
    panels += [(caption, colour_mask(mask, colours)) for caption, mask in masks.items()]
    return side_by_side([*panels, *(reconstructions or {}).items()], height=height)


def _fewest_rows(widths: Sequence[int], width: int) -> int:
    """With which a legend is no wider than that, or than two columns of the longest name."""
    widest = max(width, 2 * max(widths))
    return next(rows for rows in range(1, len(widths) + 1) if sum(_columns(widths, rows)) <= widest)


def _columns(widths: Sequence[int], rows: int) -> list[int]:
    return [max(widths[first : first + rows]) for first in range(0, len(widths), rows)]


def _legend_table(entries: Legend, widths: Sequence[int], rows: int, letters: int) -> Any:
    """Squares of the colours and their names, column by column."""
    font = _font(letters)
    table = pillow().new("RGB", (sum(widths), min(rows, len(entries)) * 2 * letters), PAPER)
    drawing = pillow("ImageDraw").Draw(table)
    for place, (name, colour) in enumerate(entries):
        left = sum(widths[: place // rows]) + letters // 2
        top = place % rows * 2 * letters + letters // 2
        square = (left, top, left + letters, top + letters)
        drawing.rectangle(square, fill=tuple(colour), outline=FRAME)
        drawing.text((left + letters * 1.5, top + letters / 2), name, fill=INK, font=font, anchor="lm")
    return table


def _captioned(picture: Any, caption: str, letters: int) -> Any:
    font = _font(letters)
    width = max(picture.width, ceil(font.getlength(caption)) + letters // 2)
    panel = pillow().new("RGB", (width, picture.height + 2 * letters), PAPER)
    panel.paste(picture, (0, 2 * letters))
    pillow("ImageDraw").Draw(panel).text((letters // 8, letters), caption, fill=INK, font=font, anchor="lm")
    return panel


def _joined(pictures: Sequence[Any], *, beside: bool, gap: int = 0) -> Any:
    """On one sheet, from the left or from the top."""
    along = [picture.width if beside else picture.height for picture in pictures]
    across = max(picture.height if beside else picture.width for picture in pictures)
    length = sum(along) + gap * (len(pictures) - 1)
    sheet = pillow().new("RGB", (length, across) if beside else (across, length), PAPER)
    place = 0
    for picture, size in zip(pictures, along, strict=True):
        sheet.paste(picture, (place, 0) if beside else (0, place))
        place += size + gap
    return sheet


def _as_image(picture: NDArray[np.uint8]) -> Any:
    grey = picture.ndim == 3 and picture.shape[-1] == 1
    return pillow().fromarray(picture[..., 0] if grey else picture).convert("RGB")


def _of_height(picture: Any, height: int) -> Any:
    size = max(1, round(picture.width * height / picture.height)), height
    filters = pillow().Resampling
    return picture.resize(size, filters.NEAREST if height >= picture.height else filters.BOX)


def _enlarged(picture: Any, least: int) -> Any:
    times = ceil(least / max(picture.size))
    return picture.resize((picture.width * times, picture.height * times), pillow().Resampling.NEAREST)


def _font(letters: int) -> Any:
    return pillow("ImageFont").load_default(letters)


def _one_line(text: str) -> str:
    return " ".join(text.split())
