"""What networks that were trained on masks predict of their test images, as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from infopro.data import VOID
from infopro.prediction import colour_mask, default_colours
from infopro.recipes import MaskExamples, read_mask_examples
from infopro.report import MaskPictures, MaskRow
from infopro.run_report.grouping import Method
from infopro.run_report.reading import StoredRun

__all__ = ["mask_pictures"]

Colours = Sequence[tuple[int, int, int]]


def mask_pictures(methods: Sequence[Method]) -> MaskPictures | None:
    """Of each method the first run that has examples of the same test images as the first method's."""
    found: dict[str, MaskExamples] = {}
    runs: dict[str, StoredRun] = {}
    for method in methods:
        for run in method.runs:
            examples = read_mask_examples(run.path)
            if examples is not None and method.name not in found:
                found[method.name], runs[method.name] = examples, run
    if not found:
        return None
    first = next(iter(found.values()))
    names, colours = _classes(next(iter(runs.values())))
    same = {name: one for name, one in found.items() if np.array_equal(one.images, first.images)}
    void = [("not labelled", (0, 0, 0))] if (first.truth == VOID).any() else []
    return MaskPictures(
        images=first.images,
        truth=_coloured(first.truth, colours),
        rows=tuple(row for name, one in same.items() for row in _rows(name, one, colours)),
        legend=(*zip(names, colours, strict=True), *void),
    )


def _classes(run: StoredRun) -> tuple[list[str], Colours]:
    names = list(map(str, run.record.get("class_names", ())))
    stored = [(int(red), int(green), int(blue)) for red, green, blue in run.record.get("colours", ())]
    return names, stored or default_colours(len(names))


def _rows(method: str, examples: MaskExamples, colours: Colours) -> Iterator[MaskRow]:
    for source, masks in examples.predictions.items():
        said = "prediction" if source == "network" else f"{source}'s own"
        yield MaskRow(method=method, source=said, images=_coloured(masks, colours))
    for source, images in examples.reconstructions.items():
        yield MaskRow(method=method, source=f"drawn from {source}", images=images)


def _coloured(masks: NDArray[np.uint8], colours: Colours) -> NDArray[np.uint8]:
    return np.stack([colour_mask(mask, colours) for mask in masks])
