"""Rows -> Altair charts; a further chart is one more function here and one more line in `figures`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from infopro.report import series
from infopro.report._drawing import Figure, figure, layers, method_scales, named_chart, named_row, tooltips
from infopro.report._formats import mebibytes, nats, percent, ratio
from infopro.report._packages import report_package
from infopro.report._types import MethodResult

__all__ = [
    "Figure",
    "figures",
    "final_errors",
    "learning_curves",
    "module_losses",
    "reconstruction_errors",
    "saved_bytes",
]


def _listed(pairs: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"{name} {value}" for name, value in pairs)


def learning_curves(methods: Sequence[MethodResult]) -> Figure:
    """Test error against epoch, one line a method."""
    alt, key = report_package("altair"), "learning-curves"
    rows = series.error_rows(methods)
    chart = (
        named_chart(key)
        .mark_line(point=alt.OverlayMarkDef(size=50, filled=True), strokeWidth=2)
        .encode(
            x=alt.X(
                "epoch:Q",
                title="epoch",
                axis=alt.Axis(tickMinStep=1, format="d"),
                scale=alt.Scale(nice=False),
            ),
            y=alt.Y("test_error_percent:Q", title="test error (%)", scale=alt.Scale(zero=True)),
            tooltip=tooltips(
                ("method", "method"), ("epoch", "epoch"), ("test_error_percent", "test error (%)")
            ),
            **method_scales(methods),
        )
        .properties(width="container", height=320)
    )
    last = [(m.name, percent(m.records[-1].test_error)) for m in methods if m.records]
    return figure(
        key,
        chart,
        rows,
        alt=f"Line chart of test error against epoch. After the last epoch: {_listed(last)}.",
    )


def module_losses(methods: Sequence[MethodResult]) -> Figure:
    """Loss against epoch in one panel per module, on a shared axis; the term is chosen in the page."""
    alt, key = report_package("altair"), "module-losses"
    rows = series.loss_rows(methods)
    terms = sorted({str(row["term"]) for row in rows}, key=lambda term: (term != "total", term))
    term = alt.param(
        name="term", value=terms[0], bind=alt.binding_select(options=terms, name="Term of the loss: ")
    )
    panel = (
        named_chart(key)
        .mark_line(point=alt.OverlayMarkDef(size=30, filled=True), strokeWidth=1.5)
        .encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d", tickCount=5)),
            y=alt.Y("loss_nats:Q", title="training loss (nats)", scale=alt.Scale(zero=False)),
            tooltip=tooltips(("method", "method"), ("epoch", "epoch"), ("loss_nats", "loss (nats)")),
            **method_scales(methods),
        )
        .properties(width=220, height=200)
    )
    chart = (
        panel.add_params(term)
        .transform_filter("datum.term === term")
        .facet(facet=alt.Facet("panel:O", header=alt.Header(labelExpr="'module ' + datum.value")), columns=4)
    )
    shown = ", ".join(terms)
    return figure(
        key,
        chart,
        rows,
        alt=f"Line charts of the training loss against epoch, one panel per module. Terms: {shown}.",
    )


def final_errors(methods: Sequence[MethodResult]) -> Figure:
    """Test error after the last epoch (filled) and after the best one (hollow), one row a method."""
    alt, key = report_package("altair"), "final-errors"
    rows = series.last_rows(methods)
    scales = method_scales(methods)
    row, label = named_row(methods, "last_test_error_percent", format=".2f", unit="%")
    tip = tooltips(
        ("method", "method"), ("last_test_error_percent", "last (%)"), ("best_test_error_percent", "best (%)")
    )
    marks = alt.Chart().encode(
        y=row, tooltip=tip, **{name: part.legend(None) for name, part in scales.items()}
    )
    error = alt.X("last_test_error_percent:Q", title="test error (%)", scale=alt.Scale(zero=True))
    last = marks.mark_point(filled=True, size=130, opacity=1).encode(x=error)
    best = marks.mark_point(filled=False, size=130, strokeWidth=1.5).encode(x="best_test_error_percent:Q")
    chart = layers(key, len(rows), best, last, label)
    listed = _listed((m.name, percent(m.records[-1].test_error)) for m in methods if m.records)
    return figure(
        key,
        chart,
        rows,
        alt=f"Dot plot of the test error after the last epoch: {listed}.",
    )


def saved_bytes(methods: Sequence[MethodResult]) -> Figure:
    """Saved activations, one bar a method."""
    alt, key = report_package("altair"), "saved-activations"
    rows = series.memory_rows(methods)
    row, label = named_row(methods, "saved_mebibytes", format=".3~r", unit="MiB")
    size = alt.X("saved_mebibytes:Q", title="saved activations (MiB)", scale=alt.Scale(zero=True))
    colour = method_scales(methods)["color"].legend(None)
    tip = tooltips(("method", "method"), ("saved_mebibytes", "MiB"), ("ratio", "multiple of end to end"))
    bars = alt.Chart().mark_bar(height=16).encode(x=size, y=row, color=colour, tooltip=tip)
    chart = layers(key, len(rows), bars, label)
    listed = _listed(
        (m.name, f"{mebibytes(m.saved_bytes)} ({ratio(series.memory_ratio(m, methods))})") for m in methods
    )
    return figure(
        key,
        chart,
        rows,
        alt=f"Bar chart of saved activations: {listed}.",
    )


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
    listed = _listed((m.name, ", ".join(nats(part.error) for part in m.reconstructions)) for m in methods)
    return figure(
        key,
        chart,
        rows,
        alt=f"Line chart of reconstruction cross-entropy against module: {listed}.",
    )


def figures(methods: Sequence[MethodResult]) -> dict[str, tuple[Figure, ...]]:
    """The charts that the results allow, by section of the page.

    Raises:
        MissingPackage: altair is not installed.
    """
    trained = any(method.records for method in methods)
    decoded = any(method.reconstructions for method in methods)
    plan: dict[str, list[tuple[bool, Callable[[Sequence[MethodResult]], Figure]]]] = {
        "result": [(trained, final_errors), (bool(methods), saved_bytes)],
        "reconstructions": [(decoded, reconstruction_errors)],
        "curves": [(trained, learning_curves), (trained and bool(series.loss_rows(methods)), module_losses)],
    }
    return {part: tuple(draw(methods) for wanted, draw in charts if wanted) for part, charts in plan.items()}
