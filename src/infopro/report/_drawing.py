"""What all charts share: colours and shapes of the methods, the look, and the `Figure` that a page embeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infopro.report._captions import TEXTS
from infopro.report._packages import report_package
from infopro.report._types import MethodResult
from infopro.report.series import Row

__all__ = ["COLOURS", "Figure", "figure", "layers", "method_scales", "named_chart", "named_row", "tooltips"]

# at least 3:1 against white and against the dark page; a shape per method besides, for those who see no hue
COLOURS = ("#3b7dd8", "#d9541e", "#1f9d72", "#a35fd0", "#b8860b", "#d6479b", "#1a93a8", "#7a8290")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
INK = "#24292f"  # of an exported image; on the page the style sheet recolours text for light and dark

CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "title": {"anchor": "start", "fontSize": 16, "fontWeight": 600, "color": INK, "offset": 12},
    "axis": {
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelColor": INK,
        "titleColor": INK,
        "gridColor": "#8b949e",
        "gridOpacity": 0.25,
        "domainColor": "#8b949e",
        "tickColor": "#8b949e",
        "titlePadding": 8,
    },
    "header": {"labelFontSize": 12, "labelColor": INK, "title": None},
    "legend": {
        "orient": "top",
        "title": None,
        "labelFontSize": 12,
        "labelLimit": 0,
        "labelColor": INK,
        "symbolSize": 90,
        "columns": 4,
    },
}


@dataclass(frozen=True)
class Figure:
    """One chart: the specification refers to its rows by the name `key`, so that they are stored once."""

    key: str  # identifier in the page, and the name of the downloaded files
    caption: str  # how to read it
    alt: str  # what it shows, for those who cannot see it
    spec: Mapping[str, Any]  # Vega-Lite
    rows: tuple[Row, ...]


def figure(key: str, chart: Any, rows: Sequence[Row], *, alt: str) -> Figure:
    """A chart with its title and caption; `alt` tells what it shows to those who cannot see it."""
    title, caption = TEXTS[key]
    spec = chart.to_dict(validate=True) | {"title": title, "description": alt, "config": CONFIG}
    return Figure(key, caption, alt, spec, tuple(rows))


def named_chart(key: str) -> Any:
    """A chart over the rows that the page stores under `key`."""
    alt = report_package("altair")
    return alt.Chart(alt.NamedData(name=key), name=key.replace("-", "_"))


def method_scales(methods: Sequence[MethodResult]) -> dict[str, Any]:
    """Colour and shape of each method: the same in every chart of the page."""
    alt = report_package("altair")
    names = [method.name for method in methods]
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(names))]
    shapes = [SHAPES[i % len(SHAPES)] for i in range(len(names))]
    return {
        "color": alt.Color("method:N", scale=alt.Scale(domain=names, range=colours)),
        "shape": alt.Shape("method:N", scale=alt.Scale(domain=names, range=shapes)),
    }


def tooltips(*fields: tuple[str, str]) -> list[Any]:
    """Field and heading of each line of the box that appears over a mark."""
    alt = report_package("altair")
    number = {"type": "quantitative", "format": ".4~g"}
    return [
        alt.Tooltip(field=field, title=title, **(number if field != "method" else {"type": "nominal"}))
        for field, title in fields
    ]


def named_row(methods: Sequence[MethodResult], field: str, *, format: str, unit: str) -> tuple[Any, Any]:
    """A row per method with its name and value above it: an axis of names would leave phones no room."""
    alt = report_package("altair")
    axis = alt.Axis(labels=False, ticks=False, domain=False, grid=True)
    row = alt.Y("method:N", sort=[m.name for m in methods], title=None, axis=axis)
    style = {"align": "left", "baseline": "middle", "dx": 2, "dy": -19, "fontSize": 12, "color": INK}
    # a missing number would be formatted as 0
    value = f"isValid(datum.{field}) ? format(datum.{field}, '{format}') + ' {unit}' : 'not a number'"
    named = alt.Chart().transform_calculate(label=f"datum.method + ': ' + ({value})")
    return row, named.mark_text(**style).encode(x=alt.value(0), y=row, text="label:N")


def layers(key: str, num_rows: int, *parts: Any) -> Any:
    """Layers that share the rows called `key`, one method below the other."""
    alt = report_package("altair")
    chart = alt.layer(*parts, data=alt.NamedData(name=key))
    return chart.properties(width="container", height=52 * num_rows)
