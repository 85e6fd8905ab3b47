"""Rows -> Altair charts; a further chart is one more function here and one more line in `figures`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from infopro.report import series
from infopro.report._drawing import (
    Figure,
    dashes,
    figure,
    layers,
    listed,
    method_scales,
    named_chart,
    named_row,
    of_shown_k,
    tooltips,
)
from infopro.report._formats import nats, percent
from infopro.report._measure import error_title
from infopro.report._memory_charts import saved_bytes, step_bytes
from infopro.report._packages import report_package
from infopro.report._types import MethodResult

__all__ = [
    "Figure",
    "error_against_k",
    "figures",
    "final_errors",
    "learning_curves",
    "module_losses",
    "reconstruction_errors",
    "saved_bytes",
    "step_bytes",
]


def _last_errors(methods: Sequence[MethodResult]) -> str:
    rows = series.last_rows(methods)
    return listed((str(r["method"]), percent(r["last_test_error_percent"])) for r in rows)  # type: ignore[arg-type]


def learning_curves(methods: Sequence[MethodResult]) -> Figure:
    """Test error against epoch, one line a method; a band of one standard deviation where it has runs."""
    alt, key = report_package("altair"), "learning-curves"
    rows = series.error_rows(methods)
    scales = method_scales(methods)
    error = alt.Y("test_error_percent:Q", title=error_title(methods), scale=alt.Scale(zero=True))
    axis = alt.Axis(tickMinStep=1, format="d")
    epoch = alt.X("epoch:Q", title="epoch", axis=axis, scale=alt.Scale(nice=False))
    point = alt.OverlayMarkDef(size=50, filled=True) if len(rows) <= 40 * len(methods) else False
    tip = tooltips(
        ("method", "method"),
        ("epoch", "epoch"),
        ("test_error_percent", error_title(methods)),
        ("test_error_deviation", "standard deviation"),
        ("runs", "runs"),
    )
    lines = alt.Chart().mark_line(point=point, strokeWidth=2)
    looks = {**scales, **dashes(methods)} if point else {"color": scales["color"], **dashes(methods)}
    parts = [lines.encode(x=epoch, y=error, tooltip=tip, **looks)]
    if any(row["test_error_deviation"] is not None for row in rows):
        parts.insert(0, _deviations(epoch, scales["color"], error_title(methods)))
    chart = of_shown_k(alt.layer(*parts, data=alt.NamedData(name=key)), methods)
    chart = chart.properties(width="container", height=320)
    described = f"Line chart of test error against epoch. After the last epoch: {_last_errors(methods)}."
    return figure(key, chart, rows, alt=described)


def _deviations(x: Any, color: Any, title: str) -> Any:
    """A band of one standard deviation above and below the mean."""
    alt = report_package("altair")
    return (
        alt.Chart()
        .transform_filter("isValid(datum.test_error_deviation)")
        .transform_calculate(
            low="datum.test_error_percent - datum.test_error_deviation",
            high="datum.test_error_percent + datum.test_error_deviation",
        )
        .mark_area(opacity=0.18)
        .encode(x=x, y=alt.Y("low:Q", title=title), y2="high:Q", color=color, detail="method:N")
    )


def module_losses(methods: Sequence[MethodResult]) -> Figure:
    """Loss against epoch in one panel per module, on a shared axis; the term is chosen in the page.

    A network in one piece has one loss, at its output: its panel is that of the last modules.
    """
    alt, key = report_package("altair"), "module-losses"
    rows = series.loss_rows(methods)
    terms = sorted({str(row["term"]) for row in rows}, key=lambda term: (term != "total", term))
    term = alt.param(
        name="term", value=terms[0], bind=alt.binding_select(options=terms, name="Term of the loss: ")
    )
    most = max(method.num_modules for method in methods)
    last = f"max(shown, 0) || {most}" if series.several_k(methods) else str(most)
    scales = method_scales(methods)
    point = alt.OverlayMarkDef(size=30, filled=True) if len(series.error_rows(methods)) <= 200 else False
    panel = (
        named_chart(key)
        .mark_line(point=point, strokeWidth=1.5)
        .encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d", tickCount=5)),
            y=alt.Y("loss_nats:Q", title="training loss (nats)", scale=alt.Scale(zero=False)),
            tooltip=tooltips(("method", "method"), ("epoch", "epoch"), ("loss_nats", "loss (nats)")),
            detail="method:N",
            **(scales if point else {"color": scales["color"]}),
        )
        .properties(width=220, height=200)
    )
    header = alt.Header(labelExpr="'module ' + datum.value")
    chart = (
        of_shown_k(panel.add_params(term), methods)
        .transform_filter("datum.term === term")
        .transform_calculate(panel=f"datum.num_modules === 1 ? ({last}) : datum.module")
        .facet(facet=alt.Facet("panel:O", header=header), columns=4)
    )
    described = "Line charts of the training loss against epoch, one panel per module."
    return figure(key, chart, rows, alt=f"{described} Terms: {', '.join(terms)}.", panels=most)


def final_errors(methods: Sequence[MethodResult]) -> Figure:
    """Test error after the last epoch (filled) and after the best one (hollow), one row a method."""
    alt, key = report_package("altair"), "final-errors"
    rows = series.last_rows(methods)
    scales = method_scales(methods)
    names = [str(row["method"]) for row in rows]
    row, label = named_row(names, "last_test_error_percent", format=".2f", unit="%")
    tip = tooltips(
        ("method", "method"),
        ("last_test_error_percent", "last (%)"),
        ("last_test_error_deviation", "standard deviation"),
        ("runs", "runs"),
        ("best_test_error_percent", "best (%)"),
    )
    marks = alt.Chart().encode(
        y=row, tooltip=tip, **{name: part.legend(None) for name, part in scales.items()}
    )
    error = alt.X("last_test_error_percent:Q", title=error_title(methods), scale=alt.Scale(zero=True))
    last = marks.mark_point(filled=True, size=130, opacity=1).encode(x=error)
    best = marks.mark_point(filled=False, size=130, strokeWidth=1.5).encode(x="best_test_error_percent:Q")
    low, high = (
        f"datum.last_test_error_percent {sign} (datum.last_test_error_deviation || 0)" for sign in "-+"
    )
    bars = (
        alt.Chart()
        .transform_calculate(low=low, high=high)
        .mark_rule(strokeWidth=2)
        .encode(x="low:Q", x2="high:Q", y=row, color=scales["color"].legend(None))
    )
    chart = layers(key, len(rows), best, bars, last, label)
    described = f"Dot plot of the test error after the last epoch: {_last_errors(methods)}."
    return figure(key, chart, rows, alt=described)


def error_against_k(methods: Sequence[MethodResult]) -> Figure:
    """Test error against K, one line per objective; end to end is a line across."""
    alt, key = report_package("altair"), "error-against-k"
    rows = series.error_against_k_rows(methods)
    scales = method_scales(methods)
    place = alt.X("num_modules:O", title="number of modules K", axis=alt.Axis(labelAngle=0))
    error = alt.Y("last_test_error_percent:Q", title=error_title(methods), scale=alt.Scale(zero=False))
    tip = tooltips(
        ("method", "method"),
        ("last_test_error_percent", error_title(methods)),
        ("last_test_error_deviation", "standard deviation"),
        ("runs", "runs"),
    )
    chart = alt.Chart()
    bars = chart.mark_rule(strokeWidth=1.5).encode(
        x=place,
        y=alt.Y("low:Q", title=error_title(methods), scale=alt.Scale(zero=False)),
        y2="high:Q",
        color=scales["color"],
    )
    across = (
        chart.transform_filter("datum.num_modules === 1")
        .mark_rule(strokeDash=[5, 4])
        .encode(y=error, color=scales["color"])
    )
    lines = chart.mark_line(point=alt.OverlayMarkDef(size=80, filled=True), strokeWidth=2)
    lines = lines.encode(x=place, y=error, tooltip=tip, **scales)
    whole = [across] if any(row["num_modules"] == 1 for row in rows) else []
    chart = alt.layer(bars, *whole, lines, data=alt.NamedData(name=key))
    described = f"Line chart of test error against the number of modules: {_last_errors(methods)}."
    return figure(key, chart.properties(width="container", height=320), rows, alt=described)


def reconstruction_errors(methods: Sequence[MethodResult]) -> Figure:
    """Cross-entropy of the decoded test images against the module, one line a method."""
    alt, key = report_package("altair"), "reconstruction-errors"
    rows = series.reconstruction_rows(methods)
    order = list(dict.fromkeys(str(row["module"]) for row in rows))
    value = alt.Y("cross_entropy_nats:Q", title="cross-entropy (nats per pixel)", scale=alt.Scale(zero=False))
    # numbers alone: "module 1" four times is wider than a phone
    axis = alt.Axis(labelAngle=0, labelExpr="replace(datum.label, /^module /, '')")
    place = alt.X("module:N", sort=order, title="decoded from the output of module", axis=axis)
    tip = [
        alt.Tooltip("module:N"),
        *tooltips(("method", "method"), ("cross_entropy_nats", "cross-entropy (nats)")),
    ]
    chart = (
        named_chart(key)
        .mark_line(point=alt.OverlayMarkDef(size=60, filled=True), strokeWidth=2)
        .encode(x=place, y=value, tooltip=tip, **method_scales(methods))
        .properties(width="container", height=280)
    )
    errors = listed((m.name, ", ".join(nats(part.error) for part in m.reconstructions)) for m in methods)
    return figure(
        key, chart, rows, alt=f"Line chart of reconstruction cross-entropy against module: {errors}."
    )


def figures(methods: Sequence[MethodResult]) -> dict[str, tuple[Figure, ...]]:
    """The charts of training that the results allow, by section of the page.

    Raises:
        MissingPackage: altair is not installed.
    """
    trained = any(method.records for method in methods)
    decoded = any(method.reconstructions for method in methods)
    analysed = any(run.analysis is not None for method in methods for run in method.runs)
    measured = any(method.saved_bytes is not None for method in methods)
    plan: dict[str, list[tuple[bool, Callable[[Sequence[MethodResult]], Figure]]]] = {
        "result": [
            (trained and bool(series.several_k(methods)), error_against_k),
            (trained, final_errors),
            (measured, saved_bytes),
        ],
        "reconstructions": [(decoded and not analysed, reconstruction_errors)],
        "curves": [(trained, learning_curves), (trained and bool(series.loss_rows(methods)), module_losses)],
    }
    return {part: tuple(draw(methods) for wanted, draw in charts if wanted) for part, charts in plan.items()}
