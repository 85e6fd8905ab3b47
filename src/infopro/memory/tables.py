"""Plans and splits as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Literal

from infopro.memory.budget import format_bytes
from infopro.memory.tracker import KINDS

if TYPE_CHECKING:
    from infopro.memory.plan import Plan

__all__ = ["plan_table", "render"]

_NAMES = {
    "optimizer": "optimizer state",
    "activations": "saved activations",
    "heads": "heads and losses",
    "batch": "images and labels",
}


def plan_table(plan: Plan) -> str:
    """A column per manner of training; the kinds of memory that are alive at its peak add up to the peak."""
    whole = plan.rows[0].step
    steps = [row.step for row in plan.rows]
    shown = [kind for kind in KINDS if any(step.at_peak.get(kind) for step in steps)]
    rows = [
        ["batch size", *(f"{row.batch_size}" for row in plan.rows)],
        ["peak", *(format_bytes(step.peak) for step in steps)],
        [f"of {plan.rows[0].method}", *(f"{step.peak / whole.peak:.0%}" for step in steps)],
        *([_NAMES.get(k, k), *(format_bytes(s.at_peak.get(k, 0)) for s in steps)] for k in shown),
        ["operations", *(f"{step.flops / whole.flops:.2f} x" if whole.flops else "" for step in steps)],
        ["largest module saves", *(format_bytes(max(step.saved)) for step in steps)],
    ]
    inputs = " and ".join("x".join(map(str, shape)) or "numbers" for shape in plan.input_shapes)
    title = (
        f"One training step of {plan.network}, input {inputs}: predicted memory\n"
        f"{plan.precision}, {plan.optimizer}, {plan.objective}"
    )
    lines = [render(title, ["", *(row.method for row in plan.rows)], rows, ruled=2)]
    lines += [f"K = {row.num_modules}: cut behind {', '.join(row.cuts)}" for row in plan.rows if row.cuts]
    lines += ["Not counted: " + "; ".join(plan.not_counted) + "."]
    if plan.answer is not None:
        lines += [f"{format_bytes(plan.answer.budget)}: {plan.answer.reason}."]
    return "\n".join(lines)


def render(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, ruled: int = -1) -> str:
    """A plain table as wide as it needs to be: first column left, others right, a rule below row `ruled`."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="", pad_edge=False)
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for index, (column, width) in enumerate(zip(columns, widths, strict=True)):
        longest = max(width, *(len(word) for word in column.split()), 1)
        justify: Literal["left", "right"] = "left" if index == 0 else "right"
        table.add_column(column, justify=justify, width=longest, vertical="bottom")
    for index, row in enumerate(rows):
        table.add_row(*row, end_section=index == ruled)
    output = StringIO()
    Console(file=output, width=1000, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()).rstrip()
