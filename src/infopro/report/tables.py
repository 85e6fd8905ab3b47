"""The result table, for the terminal and for the page."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from infopro.report._formats import ABSENT, mebibytes, percent, points, ratio, seconds, with_deviation
from infopro.report._measure import of_masks
from infopro.report._types import MethodResult
from infopro.report.series import best_epoch, last_records, memory_ratio
from infopro.report.spread import Spread, paired, spread

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["result_cells", "result_columns", "result_table"]


def result_columns(methods: Sequence[MethodResult]) -> tuple[str, ...]:
    """The headings; those for which no method has anything are left out."""
    several = any(len(method.runs) > 1 for method in methods)
    measured = any(method.saved_bytes is not None for method in methods)
    return (
        "method",
        "K",
        "test error",
        *(("mIoU",) if of_masks(methods) else ()),
        *(("runs", "paired difference") if several else ()),
        "best epoch's error",
        *(("saved activations", "vs end to end") if measured else ()),
        "training time",
    )


def result_cells(method: MethodResult, methods: Sequence[MethodResult]) -> tuple[str, ...]:
    """One row as text with units, in the order of `result_columns`.

    Of several runs: means with standard deviations (n - 1), and the difference to the first method over the
    seeds that both have.
    """
    last = last_records(method) if method.records else {}
    best = spread([record.best_test_error for record in last.values()])
    epoch = best_epoch(method)
    times = spread([run.seconds for run in method.counted])
    cells = {
        "method": method.name,
        "K": str(method.num_modules),
        "test error": _percent(spread([record.test_error for record in last.values()])),
        "mIoU": _percent(spread([100.0 - record.test_error for record in last.values()])),
        "runs": str(len(last)),
        "paired difference": _difference(method, methods[0]),
        "best epoch's error": _percent(best) if epoch is None else f"{_percent(best)} (epoch {epoch})",
        "saved activations": ABSENT if method.saved_bytes is None else mebibytes(method.saved_bytes),
        "vs end to end": ratio(memory_ratio(method, methods)),
        "training time": ABSENT if times is None else seconds(times.mean),
    }
    return tuple(cells[name] for name in result_columns(methods))


def _percent(found: Spread | None) -> str:
    if found is None:
        return percent(None)
    return with_deviation(found.mean, found.deviation, "%")


def _difference(method: MethodResult, first: MethodResult) -> str:
    if method is first or not method.records or not first.records:
        return ABSENT
    own, others = (
        {seed: record.test_error for seed, record in last_records(m).items()} for m in (method, first)
    )
    found = paired(own, others)
    if found is None or not math.isfinite(found.mean):
        return ABSENT
    return f"{points(found.mean, found.deviation)} (n = {found.count})"


def result_table(methods: Sequence[MethodResult], *, title: str | None = None) -> Table:
    """One row a method: K, test error of the last and of the best epoch, saved activations, training time.

    Print it with a `rich.console.Console`: where there is no terminal, it writes plain text.

    Example:
        >>> result_table([MethodResult(name="greedy", num_modules=4, runs=(), saved_bytes=2**20)]).row_count
        1
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    first, *others = result_columns(methods)
    # only names are wrapped: a terminal of 80 columns shows every digit
    table.add_column(first, overflow="fold")
    for column in others:
        table.add_column(textwrap.fill(column, 8, break_long_words=False), justify="right", no_wrap=True)
    for method in methods:
        # Text, not str: a name in [brackets] is no markup
        table.add_row(*(Text(cell) for cell in result_cells(method, methods)))
    return table
