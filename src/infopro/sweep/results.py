"""What a sweep's runs ended with: read from their folders, as a table and as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infopro.errors import BadRun
from infopro.report.spread import spread
from infopro.sweep.cells import Cell
from infopro.training import RunFolder

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["CellResult", "is_finished", "read_results", "summary_table", "write_results"]


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """A finished run."""

    cell: Cell
    folder: Path
    test_error: float  # %, after the last epoch
    best_test_error: float  # %, after the best one
    seconds: float  # of training
    of_masks: bool = False  # an error is 100 - mean intersection over union then


def is_finished(folder: Path, *, epochs: int) -> bool:
    """Whether a run has its last epoch's log line and checkpoint."""
    if not (folder / "config.json").is_file():
        return False
    run = RunFolder(folder)
    try:
        return run.has_checkpoint() and len(run.log()) >= epochs
    except BadRun:
        return False


def read_results(cells: Sequence[Cell], runs: Path) -> list[CellResult]:
    """Those of the runs that are finished, in the order of the cells."""
    found = []
    for cell in cells:
        folder = runs / cell.name
        if is_finished(folder, epochs=cell.config.epochs):
            log = RunFolder(folder).log()
            found.append(
                CellResult(
                    cell=cell,
                    folder=folder,
                    test_error=log[-1].test_error,
                    best_test_error=log[-1].best_test_error,
                    seconds=sum(record.seconds for record in log),
                    of_masks="mean_iou" in log[-1].extra,
                )
            )
    return found


def write_results(results: Sequence[CellResult], file: Path) -> Path:
    """One line a run; the file appears whole."""
    part = file.with_name(f".{file.name}.partial")
    with part.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            [
                "method",
                "num_modules",
                "seed",
                "test_error_percent",
                "best_test_error_percent",
                "seconds",
                "run",
            ]
        )
        for result in results:
            cell = result.cell
            numbers = (result.test_error, result.best_test_error, round(result.seconds, 1))
            writer.writerow([cell.method, cell.config.num_modules, cell.config.seed, *numbers, cell.name])
    part.replace(file)
    return file


def summary_table(results: Sequence[CellResult]) -> Table:
    """Methods down, K across: after the last epoch, mean ± standard deviation (n - 1), and n.

    The test error, or of masks the mean intersection over union.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    found: dict[tuple[str, int], list[float]] = {}
    for result in results:
        key = result.cell.method, result.cell.config.num_modules
        found.setdefault(key, []).append(100 - result.test_error if result.of_masks else result.test_error)
    columns = sorted({k for _, k in found})
    what = "mIoU" if any(result.of_masks for result in results) else "error"
    title = f"test {what} (%) after the last epoch"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("method")
    for k in columns:
        table.add_column(f"K = {k}", justify="right")
    for method in dict.fromkeys(method for method, _ in found):
        table.add_row(method, *(mean_and_deviation(found.get((method, k), [])) for k in columns))
    return table


def mean_and_deviation(values: Sequence[float]) -> str:
    """As text, with n.

    Example:
        >>> mean_and_deviation([10.0, 12.0])
        '11.00 ± 1.41 (n = 2)'
    """
    found = spread(values)
    if found is None:
        return "–"
    if math.isnan(found.mean):
        return f"diverged (n = {found.count})"
    deviation = "" if found.deviation is None else f" ± {found.deviation:.2f}"
    return f"{found.mean:.2f}{deviation} (n = {found.count})"
