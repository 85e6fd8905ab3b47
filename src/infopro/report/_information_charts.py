"""Analyses -> Altair charts against depth: what the output of each block says of x, y and r."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infopro.report import information
from infopro.report._drawing import (
    DASHES,
    EVERY_K,
    GREY,
    INK,
    SHOWN_K,
    Figure,
    dashes,
    figure,
    listed,
    method_scales,
    of_shown_k,
    tooltips,
)
from infopro.report._packages import report_package
from infopro.report._types import MethodResult
from infopro.report.series import Row, several_k

__all__ = ["information_figures"]

HEIGHT = 340  # CSS pixels
CAPACITY_DASHES = [[1, 0], [3, 3], [8, 3]]  # the largest head first


@dataclass(frozen=True)
class _Quantity:
    """What is plotted against depth."""

    key: str
    field: str
    title: str  # of its axis, with the unit
    rows: Callable[[Sequence[MethodResult]], list[Row]]
    reference: str = ""  # the field of a line across, and what is written at it
    reference_name: str = ""
    lowest: float | None = None  # of the axis; None: what the numbers need


_QUANTITIES = (
    _Quantity(
        "linear-separability",
        "test_error_percent",
        "test error of a linear probe (%)",
        information.linear_rows,
    ),
    _Quantity("image-information", "score", "1 − cross-entropy (nats per pixel)", information.score_rows),
    _Quantity(
        "image-information-nats", "information_nats", "I(h, x) (nats per image)", information.image_rows
    ),
    _Quantity(
        "task-information",
        "information_nats",
        "I(h, y) (nats)",
        information.task_rows,
        "label_entropy_nats",
        "H(y)",
        0.0,
    ),
)
_NUISANCE = _Quantity(
    "nuisance-information",
    "information_nats",
    "I(h, r) (nats)",
    information.nuisance_rows,
    "entropy_nats",
    "H(r)",
    0.0,
)


def information_figures(methods: Sequence[MethodResult]) -> tuple[Figure, ...]:
    """The charts for which there are numbers."""
    found = [_figure(quantity, methods) for quantity in _QUANTITIES if quantity.rows(methods)]
    return (*found, _panels(methods)) if _NUISANCE.rows(methods) else tuple(found)


def _figure(quantity: _Quantity, methods: Sequence[MethodResult]) -> Figure:
    rows = quantity.rows(methods)
    chart = _layers(quantity, methods, rows).properties(width="container", height=HEIGHT)
    return figure(quantity.key, chart, rows, alt=_described(quantity, rows))


def _panels(methods: Sequence[MethodResult]) -> Figure:
    """One panel per factor, on a shared axis."""
    alt, rows = report_package("altair"), _NUISANCE.rows(methods)
    factors = list(dict.fromkeys(str(row["panel"]) for row in rows))
    chart = _layers(_NUISANCE, methods, rows).properties(width=220, height=200)
    chart = chart.facet(facet=alt.Facet("panel:N", sort=factors), columns=3)
    return figure(_NUISANCE.key, chart, rows, alt=_described(_NUISANCE, rows), panels=len(factors))


def _layers(quantity: _Quantity, methods: Sequence[MethodResult], rows: Sequence[Row]) -> Any:
    alt = report_package("altair")
    scales = method_scales(methods)
    depth = _depth(methods, rows)
    # layers share an axis only if all say the same of it
    shared = {"title": quantity.title, "scale": alt.Scale(domain=_domain(quantity, rows), zero=False)}
    value = alt.Y(f"{quantity.field}:Q", **shared)
    chart = alt.Chart()
    tip = tooltips(
        ("method", "method"),
        ("block", "block"),
        *((("capacity", "auxiliary network"),) if "capacity" in rows[0] else ()),
        (quantity.field, quantity.title),
        ("low", "95 % interval from"),
        ("high", "to"),
        ("estimates", "n"),
    )
    line = _capacities(methods, rows) if "capacity" in rows[0] else dashes(methods)
    parts = [_cuts(depth, methods), *_references(quantity, rows, shared)]
    if any(row["low"] is not None for row in rows):
        band = chart.transform_filter("isValid(datum.low)").mark_area(opacity=0.15, clip=True)
        detail = ["method:N", *(["capacity:N"] if "capacity" in rows[0] else [])]
        parts.append(
            band.encode(
                x=depth, y=alt.Y("low:Q", **shared), y2="high:Q", color=scales["color"], detail=detail
            )
        )
    # points apart from lines: else the legend of dashes has no stroke
    parts.append(
        chart.mark_line(strokeWidth=2, clip=True).encode(x=depth, y=value, color=scales["color"], **line)
    )
    points = chart.mark_point(filled=True, size=45, opacity=1, clip=True)
    parts.append(points.encode(x=depth, y=value, tooltip=tip, **scales))
    layered = alt.layer(*parts, data=alt.NamedData(name=quantity.key))
    shown = of_shown_k(layered, methods)
    return _one_line_each(shown, methods, rows) if "capacity" in rows[0] else shown


def _depth(methods: Sequence[MethodResult], rows: Sequence[Row]) -> Any:
    """The axis of blocks, by their names."""
    alt = report_package("altair")
    names = information.block_names(methods)
    depths = sorted({int(str(row["depth"])) for row in rows})
    axis = alt.Axis(
        values=depths,
        labelExpr=f"{json.dumps(names)}[datum.value]",
        labelAngle=-50,
        labelLimit=110,
        labelOverlap=True,
        grid=False,
    )
    scale = alt.Scale(domain=[depths[0] - 0.3, depths[-1] + 0.3], nice=False)
    return alt.X("depth:Q", title="output of block", axis=axis, scale=scale)


def _domain(quantity: _Quantity, rows: Sequence[Row]) -> list[float]:
    """Of the means, with some room for their bands: a band that needs more is cut off."""
    means = _numbers(rows, quantity.field) or [0.0]
    shown = [*means, *(_numbers(rows, quantity.reference) if quantity.reference else [])]
    low, high = min(shown), max(shown)
    room = 0.4 * (high - low) or 0.5
    low = max(low - room, min([low, *_numbers(rows, "low")]))
    high = min(high + room, max([high, *_numbers(rows, "high")]))
    if quantity.lowest is not None:
        low = min(low, quantity.lowest)
    margin = 0.04 * (high - low)
    return [low - margin, high + margin]


def _numbers(rows: Sequence[Row], field: str) -> list[float]:
    return [float(value) for row in rows if isinstance(value := row.get(field), int | float)]


def _references(quantity: _Quantity, rows: Sequence[Row], shared: Mapping[str, Any]) -> list[Any]:
    """A line across at what could be known at most, with its name."""
    if not quantity.reference or not _numbers(rows, quantity.reference):
        return []
    alt = report_package("altair")
    # one mark, not one for every row
    once = alt.Chart().transform_aggregate(most=f"mean({quantity.reference})", groupby=_facet(rows))
    place = alt.Y("most:Q", **shared)
    name = {"align": "right", "dy": 9, "fontSize": 11, "color": INK, "text": quantity.reference_name}
    line = once.mark_rule(strokeDash=[5, 4], color=GREY, strokeWidth=1.5)
    return [line.encode(y=place), once.mark_text(**name).encode(y=place, x=alt.value("width"))]


def _facet(rows: Sequence[Row]) -> list[str]:
    return ["panel"] if "panel" in rows[0] else []


def _cuts(depth: Any, methods: Sequence[MethodResult]) -> Any:
    """A line behind each block that ends a module; none while every K is shown."""
    alt = report_package("altair")
    one_k = f" && {SHOWN_K} !== {EVERY_K}" if several_k(methods) else ""
    cuts = alt.Chart().transform_filter(f"datum.ends_module === 1{one_k}")
    once = cuts.transform_calculate(behind="datum.depth + 0.5").transform_aggregate(
        count="count()", groupby=["behind"]
    )
    behind = depth.copy()
    behind.shorthand = "behind:Q"
    return once.mark_rule(color=GREY, opacity=0.45).encode(x=behind)


def _capacities(methods: Sequence[MethodResult], rows: Sequence[Row]) -> dict[str, Any]:
    """Dashes by the auxiliary network's capacity, the one that finds most solid; for every K, by K."""
    alt = report_package("altair")
    names = _by_information(rows)
    ks = [f"K = {k}" for k in (1, *several_k(methods))]
    ranges = [CAPACITY_DASHES[i % 3] for i in range(len(names))]
    ranges += [list(DASHES[i % len(DASHES)]) for i in range(len(ks))]
    legend = alt.Legend(
        values=names,
        labelExpr="datum.label + ' auxiliary network'",
        symbolType="stroke",
        symbolStrokeColor=GREY,
        symbolSize=300,
    )
    scale = alt.Scale(domain=[*names, *ks], range=ranges)
    return {"strokeDash": alt.StrokeDash("line:N", scale=scale, legend=legend)}


def _one_line_each(chart: Any, methods: Sequence[MethodResult], rows: Sequence[Row]) -> Any:
    """While every K is shown, one capacity only; what tells lines apart is then K."""
    if not several_k(methods):
        return chart.transform_calculate(line="datum.capacity")
    every = f"{SHOWN_K} === {EVERY_K}"
    most = json.dumps(_by_information(rows)[0])
    return chart.transform_filter(f"!({every}) || datum.capacity === {most}").transform_calculate(
        line=f"{every} ? 'K = ' + datum.num_modules : datum.capacity"
    )


def _by_information(rows: Sequence[Row]) -> list[str]:
    """The capacities, the one that finds most first."""
    totals: dict[str, float] = {}
    for row in rows:
        found = float(row["information_nats"] or 0)
        totals[str(row["capacity"])] = totals.get(str(row["capacity"]), 0.0) + found
    return sorted(totals, key=lambda name: -totals[name])


def _described(quantity: _Quantity, rows: Sequence[Row]) -> str:
    """First and last value of each method."""
    ends: dict[str, list[str]] = {}
    for row in rows:
        value = row[quantity.field]
        ends.setdefault(str(row["method"]), []).append("–" if value is None else f"{value:.4g}")
    found = listed((name, f"{values[0]} to {values[-1]}") for name, values in ends.items())
    return f"Line chart against depth of {quantity.title}, from the first to the last block: {found}."
