"""What the decoders of an analysis drew, at the ends of the modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from infopro.analysis import DecodedImages
from infopro.report import Reconstruction
from infopro.run_report.grouping import Method
from infopro.run_report.reading import StoredRun

__all__ = ["ShownImages", "shown_images"]

_MOST_METHODS = 6  # beyond that, those of one K and end to end
_MOST_BLOCKS = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownImages:
    """The page's images: test images, and by method what was decoded from which block."""

    originals: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 1, 1, 3), np.uint8))
    captions: tuple[str, ...] = ()
    reconstructions: Mapping[str, tuple[Reconstruction, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def shown_images(methods: Sequence[Method]) -> ShownImages:
    """Of each method the first run that has images, from the blocks that end a module in any method."""
    runs = {
        method.name: run for method in methods for run in reversed(method.runs) if _images(run) is not None
    }
    drawn = [method for method in methods if method.name in runs]
    if not drawn:
        return ShownImages()
    kept = _of_one_k(drawn)
    first = _images(runs[kept[0].name])
    assert first is not None
    blocks = _blocks(kept, first)
    found, others = {}, []
    for method in kept:
        images = _images(runs[method.name])
        assert images is not None
        if np.array_equal(images.originals, first.originals):
            found[method.name] = tuple(_reconstructions(method, images, blocks))
        else:
            others.append(method.name)
    return ShownImages(
        originals=first.originals,
        captions=first.captions,
        reconstructions=found,
        notes=(*_left_out(drawn, kept), *_strangers(others)),
    )


def _images(run: StoredRun) -> DecodedImages | None:
    return None if run.analysis is None else run.analysis.images


def _of_one_k(methods: Sequence[Method]) -> list[Method]:
    if len(methods) <= _MOST_METHODS:
        return list(methods)
    largest = max(method.config.num_modules for method in methods)
    return [method for method in methods if method.config.num_modules in (1, largest)]


def _blocks(methods: Sequence[Method], images: DecodedImages) -> list[str]:
    """The ends of modules, in order of execution; where there is none, blocks at equal distances."""
    cuts = {cut for method in methods for cut in method.cuts}
    ends = [block for block in images.blocks if block in cuts] or list(images.blocks)
    places = np.linspace(0, len(ends) - 1, min(_MOST_BLOCKS, len(ends))).round().astype(int)
    return [ends[place] for place in places]


def _reconstructions(method: Method, images: DecodedImages, blocks: Sequence[str]) -> list[Reconstruction]:
    return [
        Reconstruction(block, images.decoded[images.blocks.index(block)], _error(method, block))
        for block in blocks
        if block in images.blocks
    ]


def _error(method: Method, block: str) -> float:
    """Over all runs and probe seeds."""
    analyses = [run.analysis for run in method.runs if run.analysis is not None]
    found = [e for a in analyses for b in a.blocks if b.block == block for e in b.input_cross_entropy]
    return float(np.mean(found)) if found else float("nan")


def _left_out(drawn: Sequence[Method], kept: Sequence[Method]) -> list[str]:
    if len(kept) == len(drawn):
        return []
    largest = max(method.config.num_modules for method in kept)
    return [
        f"Reconstructions are those of K = {largest} and of end to end; a report of other runs shows theirs."
    ]


def _strangers(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    return [f"Reconstructions of {', '.join(names)} are of other test images, and are left out."]
