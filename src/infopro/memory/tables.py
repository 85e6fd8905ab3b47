"""Plans and splits as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING, Literal

from infopro.memory.budget import format_bytes
from infopro.memory.tracker import KINDS, Kind

if TYPE_CHECKING:
    from infopro.memory.plan import Plan, PlanRow

__all__ = ["plan_table", "render"]

_NAMES = {
    "parameters": "weights",
    "optimizer": "optimizer state",
    "activations": "saved activations",
    "heads": "heads and losses",
    "batch": "images and labels",
}


def plan_table(plan: Plan) -> str:
    """A row per manner of training; the kinds of memory that are alive at its peak add up to the peak."""
    shown = [kind for kind in KINDS if any(row.step.at_peak.get(kind) for row in plan.rows)]
    sizes = {row.batch_size for row in plan.rows}
    columns = [f"batch {sizes.pop()}"] if len(sizes) == 1 else ["", "batch"]
    columns += ["peak", f"of {plan.rows[0].method}", *(_NAMES.get(kind, kind) for kind in shown)]
    columns += ["operations", "largest module saves"]
    rows = [_cells(plan, row, shown, several_sizes=columns[0] == "") for row in plan.rows]
    inputs = " and ".join("x".join(map(str, shape)) or "numbers" for shape in plan.input_shapes)
    title = (
        f"One training step of {plan.network}, input {inputs}: predicted memory\n"
        f"{plan.precision}, {plan.optimizer}, {plan.objective}"
    )
    lines = [render(title, columns, rows)]
    cuts = {row.num_modules: row.cuts for row in plan.rows if row.cuts}
    lines += [f"K = {k}: cut behind {', '.join(names)}" for k, names in cuts.items()]
    lines += ["Not counted: " + "; ".join(plan.not_counted) + "."]
    if plan.answer is not None:
        lines += [f"{format_bytes(plan.answer.budget)}: {plan.answer.reason}."]
    return "\n".join(lines)


def _cells(plan: Plan, row: PlanRow, shown: Sequence[Kind], *, several_sizes: bool) -> list[str]:
    whole, step = plan.rows[0].step, row.step
    return [
        row.method,
        *([f"{row.batch_size}"] if several_sizes else []),
        format_bytes(step.peak),
        f"{step.peak / whole.peak:.0%}",
        *(format_bytes(step.at_peak.get(kind, 0)) for kind in shown),
        f"{step.flops / whole.flops:.2f} x" if whole.flops else "",
        format_bytes(max(step.saved)),
    ]


def render(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain table as wide as it needs to be: first column left, others right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(
        box=SIMPLE_HEAD,
        title=title,
        title_justify="left",
        title_style="",
        pad_edge=False,
        padding=(0, 0, 0, 1),
    )
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for index, (column, width) in enumerate(zip(columns, widths, strict=True)):
        longest = max(width, *(len(word) for word in column.split()), 1)
        justify: Literal["left", "right"] = "left" if index == 0 else "right"
        table.add_column(column, justify=justify, width=longest, vertical="bottom")
    for row in rows:
        table.add_row(*row)
    output = StringIO()
    Console(file=output, width=1000, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()).rstrip()
