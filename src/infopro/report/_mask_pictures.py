"""Test images with a class for every pixel: truth and predictions as rows of pictures for one page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infopro.report._images import PIXEL_EXACT_SIDE, image_uri
from infopro.report._types import MaskPictures

__all__ = ["MaskGrid", "mask_grid"]

_SIDE = 140  # CSS pixels of one picture; six of them and a caption fill the page
_SHARP = 2  # stored pixels per CSS pixel, at most


@dataclass(frozen=True)
class MaskGrid:
    """Data URIs: input and truth, then one group of rows a method."""

    given: tuple[tuple[str, tuple[str, ...]], ...]
    groups: tuple[tuple[str, tuple[tuple[str, tuple[str, ...]], ...]], ...]
    legend: tuple[tuple[str, str], ...]  # class name and CSS colour
    width: int  # CSS pixels
    pixel_exact: bool
    count: int
    num_given: int


def mask_grid(pictures: MaskPictures, *, budget: int) -> MaskGrid:
    """The pictures of the page, cut to as many test images as fit into `budget` characters; at least one."""
    given = [("Image", _uris(pictures.images)), ("Ground truth", _uris(pictures.truth))]
    rows = [(row.method, row.source, _uris(row.images)) for row in pictures.rows]
    all_uris = [uris for _, uris in given] + [uris for *_, uris in rows]
    columns = np.cumsum([sum(len(uris[i]) for uris in all_uris) for i in range(len(pictures.images))])
    shown = max(1, int((columns <= budget).sum()))
    side = max(pictures.images.shape[1:3])
    methods = dict.fromkeys(row.method for row in pictures.rows)
    groups = [
        (name, tuple((source, uris[:shown]) for method, source, uris in rows if method == name))
        for name in methods
    ]
    return MaskGrid(
        given=tuple((name, uris[:shown]) for name, uris in given),
        groups=tuple(groups),
        legend=tuple((name, "#{:02x}{:02x}{:02x}".format(*colour)) for name, colour in pictures.legend),
        width=_SIDE // side * side if side <= _SIDE else _SIDE,
        pixel_exact=side <= PIXEL_EXACT_SIDE,
        count=shown,
        num_given=len(pictures.images),
    )


def _uris(images: NDArray[np.uint8]) -> tuple[str, ...]:
    return tuple(image_uri(image, largest=_SHARP * _SIDE) for image in images)
