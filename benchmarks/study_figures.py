"""The report's own charts of the study as pictures for docs/study.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vl_convert

from infopro.report import MethodResult
from infopro.report._information_charts import information_figures
from infopro.report.charts import Figure, error_against_k
from infopro.report.series import several_k
from infopro.run_report.reading import read_runs
from infopro.run_report.writing import report_data

__all__ = ["Picture", "draw_figures"]

WIDTH, PANEL = 720, 230  # pixels: of a chart, and of one panel of several
FIGURES = (
    "error-against-k",
    "linear-separability",
    "image-information",
    "task-information",
    "nuisance-information",
)


@dataclass(frozen=True)
class Picture:
    """One chart of one data set."""

    file: Path
    alt: str
    caption: str


def draw_figures(runs: Sequence[Path], folder: Path, *, prefix: str) -> Iterator[Picture]:
    """Write a picture of each figure that the runs have numbers for, the largest K where all do not fit."""
    data = report_data(read_runs(runs)[0])
    for figure in _figures(data.methods):
        if figure.key in FIGURES:
            file = folder / f"{prefix}-{figure.key}.png"
            file.write_bytes(vl_convert.vegalite_to_png(_complete(figure), scale=2))
            yield Picture(file, figure.alt, figure.caption)


def _figures(methods: Sequence[MethodResult]) -> Iterator[Figure]:
    if several_k(methods):
        yield error_against_k(methods)
    yield from information_figures(methods)


def _complete(figure: Figure) -> dict[str, Any]:
    """The specification with its numbers, on white, with widths in place of the page's."""
    spec = {**figure.spec, "datasets": {figure.key: list(figure.rows)}}
    spec["config"] = {**spec["config"], "background": "white"}
    if "facet" in spec:
        spec["spec"] = {**spec["spec"], "width": PANEL}
    elif spec.get("width") == "container":
        spec["width"] = WIDTH
    return spec
