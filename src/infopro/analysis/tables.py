"""An analysis as tables for a terminal."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from infopro.analysis._types import Analysis, BlockInformation
from infopro.analysis.information import input_information, input_scores
from infopro.memory.tables import render

__all__ = ["gradient_table", "information_table"]


def information_table(analysis: Analysis, *, title: str) -> str:
    """A row per block: what its output says of class, image and nuisance; means over the probe seeds.

    Columns of what was not estimated are left out. Nuisance is the sum over its factors.
    """
    references = analysis.references
    entropies = {"y": references.label_entropy, "r": sum(references.nuisance_entropy.values())}
    known = ", ".join(f"H({name}) = {nats:.3f}" for name, nats in entropies.items() if nats)
    capacities = list(dict.fromkeys(name for block in analysis.blocks for name in block.task_information))
    columns = [
        "block",
        "module",
        "linear error %",
        "1-BCE",
        "I(h,x)",
        *(f"I(h,y) {name}" for name in capacities),
        "I(h,r)",
    ]
    rows = [_information_cells(analysis, block, capacities) for block in analysis.blocks]
    shown = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    title = f"{title}\ninformation in nats; {known}; of the image x: beside the best constant one"
    return _table(title, [columns[i] for i in shown], [[row[i] for i in shown] for row in rows])


def gradient_table(analysis: Analysis, *, title: str) -> str:
    """A row per module: how large its own gradient is and how far it points from end-to-end training's."""
    columns = ["module", "local norm", "end-to-end norm", "angle °"]
    rows = [
        [
            str(entry.module),
            _scientific(entry.local_norm),
            _scientific(entry.end_to_end_norm),
            _with_spread(entry.angle_degrees, 1),
        ]
        for entry in analysis.gradients
    ]
    return _table(title, columns, rows)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The title on a line of its own, which may be longer than the table is wide."""
    return f"{title}\n{render('', columns, rows)}"


def _information_cells(analysis: Analysis, block: BlockInformation, capacities: Sequence[str]) -> list[str]:
    nuisance = [sum(values) for values in zip(*block.nuisance_information.values(), strict=True)]
    return [
        block.block,
        str(block.module) if block.module else "",
        _with_spread(block.linear_error, 2),
        _with_spread(input_scores(block), 4),
        _with_spread(input_information(block, analysis.references), 1),
        *(_with_spread(block.task_information.get(name, ()), 3) for name in capacities),
        _with_spread(nuisance, 3),
    ]


def _with_spread(values: Sequence[float], digits: int) -> str:
    """Mean, and standard deviation where there are several."""
    found = [value for value in values if not math.isnan(value)]
    if not found:
        return "-" if values else ""
    spread = f" ± {statistics.stdev(found):.{digits}f}" if len(found) > 1 else ""
    return f"{statistics.fmean(found):.{digits}f}{spread}"


def _scientific(values: Iterable[float]) -> str:
    found = list(values)
    return f"{statistics.fmean(found):.2e}" if found else ""
