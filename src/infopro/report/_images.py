"""uint8 images -> data URIs, few enough and small enough for one page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infopro.report._packages import report_package
from infopro.report._types import ReportData

__all__ = ["BUDGET", "ImageGrid", "ImageRow", "binary_entropy", "image_grid", "image_uri"]

LARGE_SIDE = 96  # CSS pixels of an enlarged image; larger originals are shrunk to it and stored as JPEG
PIXEL_EXACT_SIDE = 64
BUDGET = 2_500_000  # characters of all data URIs in one page


@dataclass(frozen=True)
class ImageRow:
    """One method's decoded test images."""

    method: str
    error: float
    uris: tuple[str, ...]


@dataclass(frozen=True)
class ImageGrid:
    """Originals, then per module one row a method."""

    originals: tuple[str, ...]
    captions: tuple[str, ...]
    groups: tuple[tuple[str, tuple[ImageRow, ...]], ...]
    width: int  # CSS pixels of one image: a whole multiple of its own where it is small
    pixel_exact: bool
    num_given: int
    entropy: float  # nats per pixel: what exact copies of the shown images would score
    constant: float  # nats per pixel: what one grey level for every pixel would score


def image_uri(pixels: NDArray[np.uint8], *, largest: int = LARGE_SIDE) -> str:
    """One image [H, W, C] of 1 or 3 channels as a data URI: PNG, or JPEG where it exceeds 64 pixels.

    Args:
        largest: side in pixels to which larger images are shrunk.
    """
    pillow = report_package("PIL.Image", distribution="pillow")
    image = pillow.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    buffer = io.BytesIO()
    if max(image.size) <= PIXEL_EXACT_SIDE:
        image.save(buffer, format="PNG", optimize=True)
        kind = "png"
    else:
        image.thumbnail((largest, largest))
        image.save(buffer, format="JPEG", quality=85)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def binary_entropy(probability: NDArray[np.float64] | float) -> float:
    """Mean over pixels of -p log p - (1 - p) log(1 - p), in nats: the least cross-entropy that p allows.

    Example:
        >>> round(binary_entropy(0.5), 4)
        0.6931
    """
    p = np.clip(np.asarray(probability, dtype=np.float64), 1e-12, 1 - 1e-12)
    return float(np.mean(-p * np.log(p) - (1 - p) * np.log1p(-p)))


def image_grid(data: ReportData, *, budget: int = BUDGET) -> ImageGrid:
    """The images of the page, cut to as many test images as fit into `budget` characters; at least one."""
    methods = [method for method in data.methods if method.reconstructions]
    modules = list(dict.fromkeys(part.module for method in methods for part in method.reconstructions))
    originals = tuple(image_uri(image) for image in data.originals)
    groups = [
        (
            module,
            tuple(
                ImageRow(method.name, part.error, tuple(image_uri(image) for image in part.images))
                for method in methods
                for part in method.reconstructions
                if part.module == module
            ),
        )
        for module in modules
    ]
    return _within_budget(data, originals, groups, budget)


def _within_budget(
    data: ReportData, originals: tuple[str, ...], groups: list[tuple[str, tuple[ImageRow, ...]]], budget: int
) -> ImageGrid:
    rows = [originals, *(row.uris for _, group in groups for row in group)]
    columns = np.cumsum([sum(len(uris[i]) for uris in rows) for i in range(len(originals))])
    shown = max(1, int((columns <= budget).sum())) if len(columns) else 0
    cut = [
        (name, tuple(ImageRow(r.method, r.error, r.uris[:shown]) for r in group)) for name, group in groups
    ]
    side = max(data.originals.shape[1:3])
    pixels = data.originals[:shown].astype(np.float64) / 255
    return ImageGrid(
        originals=originals[:shown],
        captions=data.captions[:shown],
        groups=tuple(cut),
        width=LARGE_SIDE // side * side if side <= LARGE_SIDE else LARGE_SIDE,
        pixel_exact=side <= PIXEL_EXACT_SIDE,
        num_given=len(originals),
        entropy=binary_entropy(pixels),
        constant=binary_entropy(float(pixels.mean())),
    )
