"""What a page cannot be drawn from, said before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from infopro.errors import BadInput
from infopro.report._types import MethodResult, ReportData

__all__ = ["check_report"]


def check_report(data: ReportData) -> None:
    """Raises `BadInput` with all that is wrong: repeated names, images that do not match the originals."""
    problems = list(_problems(data))
    if problems:
        raise BadInput(
            "the report cannot be drawn", got="; ".join(problems), remedy="correct these fields of ReportData"
        )


def _problems(data: ReportData) -> Iterator[str]:
    if not data.methods:
        yield "no method"
    for name, times in Counter(method.name for method in data.methods).items():
        if times > 1:
            yield f"method {name!r} {times} times (name the runs apart, by seed for instance)"
    for method in data.methods:
        for name, times in Counter(run.name for run in method.runs).items():
            if times > 1:
                yield f"run {name!r} of {method.name!r} {times} times"
    yield from _image_problems("originals", data.originals)
    if len(data.captions) != len(data.originals):
        yield f"{len(data.captions)} captions for {len(data.originals)} originals"
    for method in data.methods:
        yield from _reconstruction_problems(method, data.originals.shape)


def _image_problems(name: str, images: np.ndarray) -> Iterator[str]:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        yield f"{name} of type {images.dtype} and shape {list(images.shape)}, not uint8 [n, H, W, 1 or 3]"


def _reconstruction_problems(method: MethodResult, shape: tuple[int, ...]) -> Iterator[str]:
    for module, times in Counter(part.module for part in method.reconstructions).items():
        if times > 1:
            yield f"{method.name!r} has {module!r} {times} times"
    for part in method.reconstructions:
        name = f"reconstructions of {method.name!r}, {part.module}"
        yield from _image_problems(name, part.images)
        if part.images.shape != shape:
            yield f"{name} have shape {list(part.images.shape)}, the originals {list(shape)}"
    if method.reconstructions and not shape[0]:
        yield f"{method.name!r} has reconstructions, but there are no originals"
