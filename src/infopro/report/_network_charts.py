"""Analyses -> Altair charts: how alike blocks are, and how the local gradient lies to the end-to-end one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infopro.report import information
from infopro.report._drawing import (
    GREY,
    Figure,
    dashes,
    figure,
    listed,
    method_scales,
    named_chart,
    of_shown_k,
    tooltips,
)
from infopro.report._packages import report_package
from infopro.report._types import MethodResult
from infopro.report.series import Row

__all__ = ["gradient_figures", "similarity_figures"]


def similarity_figures(methods: Sequence[MethodResult]) -> tuple[Figure, ...]:
    """One heat map, of the pair of networks that the reader chooses."""
    rows = information.similarity_rows(methods)
    if not rows:
        return ()
    alt, key = report_package("altair"), "similarity"
    pairs = list(dict.fromkeys(str(row["pair"]) for row in rows))
    bind = {"bind": alt.binding_select(options=pairs, name="Networks: ")} if len(pairs) > 1 else {}
    pair = alt.param(name="pair", value=pairs[0], **bind)
    scale = alt.Scale(domain=[0, 1], scheme="viridis", clamp=True)
    # in the order of the rows, which is that of execution
    down = alt.Y("row:N", sort=None, title="block of the first network", axis=alt.Axis(labelLimit=90))
    across_axis = alt.Axis(labelAngle=-50, labelLimit=90)
    across = alt.X("column:N", sort=None, title="block of the second network", axis=across_axis)
    legend = alt.Legend(title="linear CKA", gradientLength=160)
    chart = (
        named_chart(key)
        .add_params(pair)
        .transform_filter("datum.pair === pair")
        .mark_rect()
        .encode(
            x=across,
            y=down,
            color=alt.Color("cka:Q", scale=scale, legend=legend),
            tooltip=tooltips(
                ("row", "first network"), ("column", "second network"), ("cka", "CKA"), ("runs", "n")
            ),
        )
        .properties(width="container", height=max(180, 22 * _most_blocks(rows)))
    )
    return (figure(key, chart, rows, alt=f"Heat map of linear CKA between blocks of: {', '.join(pairs)}."),)


def _most_blocks(rows: Sequence[Row]) -> int:
    blocks: dict[str, set[str]] = {}
    for row in rows:
        blocks.setdefault(str(row["pair"]), set()).add(str(row["row"]))
    return max(map(len, blocks.values()))


def gradient_figures(methods: Sequence[MethodResult]) -> tuple[Figure, ...]:
    """Angle and norms per module."""
    found = []
    if information.angle_rows(methods):
        found.append(_angles(methods))
    if information.norm_rows(methods):
        found.append(_norms(methods))
    return tuple(found)


def _modules(alt: Any) -> Any:
    axis = alt.Axis(format="d", tickMinStep=1)
    return alt.X("module:Q", title="module", axis=axis, scale=alt.Scale(nice=False, zero=False, padding=12))


def _angles(methods: Sequence[MethodResult]) -> Figure:
    alt, key = report_package("altair"), "gradient-angles"
    rows = information.angle_rows(methods)
    scales, place = method_scales(methods), _modules(alt)
    scale = alt.Scale(domain=[0, max(95.0, *(float(row["high"] or 0) for row in rows))])
    angle = alt.Y("angle_degrees:Q", title="angle (degrees)", scale=scale, axis=alt.Axis(tickCount=7))
    tip = tooltips(
        ("method", "method"),
        ("module", "module"),
        ("angle_degrees", "angle (degrees)"),
        ("batches", "batches"),
    )
    chart = alt.Chart()
    spread = chart.mark_rule(strokeWidth=1.5).encode(
        x=place, y=alt.Y("low:Q", title="angle (degrees)", scale=scale), y2="high:Q", color=scales["color"]
    )
    lines = chart.mark_line(point=alt.OverlayMarkDef(size=60, filled=True), strokeWidth=2)
    lines = lines.encode(x=place, y=angle, tooltip=tip, **scales, **dashes(methods))
    layered = alt.layer(spread, lines, data=alt.NamedData(name=key))
    layered = of_shown_k(layered, methods).properties(width="container", height=280)
    firsts = listed((str(row["method"]), f"{row['angle_degrees']:.0f}") for row in rows if row["module"] == 1)
    described = f"Line chart of the angle between local and end-to-end gradient; module 1, degrees: {firsts}."
    return figure(key, layered, rows, alt=described)


def _norms(methods: Sequence[MethodResult]) -> Figure:
    alt, key = report_package("altair"), "gradient-norms"
    rows = information.norm_rows(methods)
    scale = alt.Scale(domain=["local", "end to end"], range=[[1, 0], [3, 3]])
    legend = alt.Legend(
        labelExpr="datum.label + ' gradient'", symbolType="stroke", symbolStrokeColor=GREY, symbolSize=300
    )
    tip = tooltips(("method", "method"), ("gradient", "gradient"), ("module", "module"), ("norm", "norm"))
    chart, scales = alt.Chart(), method_scales(methods)
    places = {
        "x": _modules(alt),
        "y": alt.Y("norm:Q", title="norm of the gradient", scale=alt.Scale(type="log")),
    }
    dash = alt.StrokeDash("gradient:N", scale=scale, legend=legend)
    lines = chart.mark_line(strokeWidth=1.5).encode(
        **places, color=scales["color"], strokeDash=dash, detail="method:N"
    )
    # points apart from lines: else the legend of dashes has no stroke
    points = chart.mark_point(filled=True, size=45, opacity=1).encode(**places, tooltip=tip, **scales)
    chart = alt.layer(lines, points, data=alt.NamedData(name=key))
    chart = chart.transform_filter("datum.norm > 0")  # a logarithm has no 0
    chart = of_shown_k(chart, methods).properties(width="container", height=280)
    return figure(key, chart, rows, alt="Line chart of the norms of the local and the end-to-end gradient.")
