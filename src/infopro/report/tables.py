"""The result table for the terminal; the page has the same columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from infopro.report._formats import ABSENT, mebibytes, percent, ratio, seconds
from infopro.report._types import MethodResult
from infopro.report.series import best_epoch, memory_ratio

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["COLUMNS", "result_cells", "result_table"]

COLUMNS = (
    "method",
    "K",
    "test error",
    "best epoch's error",
    "saved activations",
    "vs end to end",
    "training time",
)


def result_cells(method: MethodResult, methods: Sequence[MethodResult]) -> tuple[str, ...]:
    """One row as text with units, in the order of `COLUMNS`."""
    last = method.records[-1] if method.records else None
    epoch = best_epoch(method)
    best = ABSENT if last is None else percent(last.best_test_error)
    return (
        method.name,
        str(method.num_modules),
        percent(last.test_error if last else None),
        best if epoch is None else f"{best} (epoch {epoch})",
        mebibytes(method.saved_bytes),
        ratio(memory_ratio(method, methods)),
        seconds(method.seconds),
    )


def result_table(methods: Sequence[MethodResult], *, title: str | None = None) -> Table:
    """One row a method: K, test error of the last and of the best epoch, saved activations, training time.

    Print it with a `rich.console.Console`: where there is no terminal, it writes plain text.

    Example:
        >>> result_table([MethodResult("greedy", "", 4, (), 2**20, 3.0)]).row_count
        1
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    # only names are wrapped: a terminal of 80 columns shows every digit
    table.add_column(COLUMNS[0], overflow="fold")
    for column in COLUMNS[1:]:
        table.add_column(textwrap.fill(column, 8, break_long_words=False), justify="right", no_wrap=True)
    for method in methods:
        # Text, not str: a name in [brackets] is no markup
        table.add_row(*(Text(cell) for cell in result_cells(method, methods)))
    return table
