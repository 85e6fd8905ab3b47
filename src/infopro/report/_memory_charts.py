"""Bytes -> Altair charts: what autograd keeps, and what a whole step keeps alive."""

from __future__ import annotations

from collections.abc import Sequence

from infopro.report import series
from infopro.report._drawing import Figure, figure, layers, listed, method_scales, named_row, tooltips
from infopro.report._formats import mebibytes, ratio
from infopro.report._packages import report_package
from infopro.report._types import MethodResult, StepBytes

__all__ = ["saved_bytes", "step_bytes"]

KINDS = {  # of `StepMemory.at_peak`: colour; 3:1 against both pages
    "activations": "#3b7dd8",
    "boundary": "#1a93a8",
    "heads": "#a35fd0",
    "parameters": "#1f9d72",
    "gradients": "#b8860b",
    "optimizer": "#d6479b",
    "batch": "#7a8290",
    "temporary": "#d9541e",
}


def saved_bytes(methods: Sequence[MethodResult]) -> Figure:
    """Saved activations, one bar a method."""
    alt, key = report_package("altair"), "saved-activations"
    rows = series.memory_rows(methods)
    names = [str(row["method"]) for row in rows]
    row, label = named_row(names, "saved_mebibytes", format=".3~r", unit="MiB")
    size = alt.X("saved_mebibytes:Q", title="saved activations (MiB)", scale=alt.Scale(zero=True))
    colour = method_scales(methods)["color"].legend(None)
    tip = tooltips(("method", "method"), ("saved_mebibytes", "MiB"), ("ratio", "multiple of end to end"))
    bars = alt.Chart().mark_bar(height=16).encode(x=size, y=row, color=colour, tooltip=tip)
    chart = layers(key, len(rows), bars, label)
    measured = [(m, m.saved_bytes) for m in methods if m.saved_bytes is not None]
    sizes = listed(
        (m.name, f"{mebibytes(size)} ({ratio(series.memory_ratio(m, methods))})") for m, size in measured
    )
    return figure(key, chart, rows, alt=f"Bar chart of saved activations: {sizes}.")


def step_bytes(steps: Sequence[StepBytes]) -> Figure:
    """The peak of one training step by what it consists of, one bar per manner of training."""
    alt, key = report_package("altair"), "step-memory"
    rows = series.step_rows(steps)
    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]
    names = [step.name for step in steps]
    row, label = named_row(names, "peak_mebibytes", format=".4~r", unit="MiB")
    size = alt.X("mebibytes:Q", title="memory at the peak (MiB)", scale=alt.Scale(zero=True))
    scale = alt.Scale(domain=kinds, range=[KINDS[kind] for kind in kinds])
    bars = (
        alt.Chart()
        .mark_bar(height=16)
        .encode(
            x=size,
            y=row,
            order="place:Q",
            color=alt.Color("kind:N", scale=scale),
            tooltip=tooltips(("method", "method"), ("kind", "kind"), ("mebibytes", "MiB")),
        )
    )
    once = label.transform_aggregate(groupby=["method", "label"])
    sizes = listed((step.name, mebibytes(sum(step.kinds.values()))) for step in steps)
    chart = layers(key, len(names), bars, once)
    return figure(key, chart, rows, alt=f"Stacked bars of a step's peak memory: {sizes}.")
