"""What all charts share: colours and shapes of the methods, the look, and the `Figure` that a page embeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infopro.report._captions import TEXTS
from infopro.report._packages import report_package
from infopro.report._types import MethodResult
from infopro.report.series import Row, several_k

__all__ = [
    "COLOURS",
    "DASHES",
    "EVERY_K",
    "SHOWN_K",
    "Figure",
    "dashes",
    "figure",
    "layers",
    "listed",
    "method_scales",
    "named_chart",
    "named_row",
    "of_shown_k",
    "tooltips",
]

# at least 3:1 against white and against the dark page; a shape per method besides, for those who see no hue
COLOURS = ("#3b7dd8", "#d9541e", "#1f9d72", "#a35fd0", "#b8860b", "#d6479b", "#1a93a8", "#7a8290")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right")
DASHES = ((1, 0), (8, 3), (4, 3), (2, 2), (8, 3, 2, 3), (1, 3))  # of K = 1 and those above it
INK = "#24292f"  # of an exported image; on the page the style sheet recolours text for light and dark
GREY = "#7a8290"  # of what belongs to no method
SHOWN_K = "shown"  # the parameter that the page's choice of K sets
EVERY_K = 0  # its value for all of them

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
        "symbolOpacity": 1,  # a band's own would hide it
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


def figure(key: str, chart: Any, rows: Sequence[Row], *, alt: str, panels: int = 0) -> Figure:
    """A chart with its title and caption; `alt` tells what it shows to those who cannot see it.

    Args:
        panels: how many a faceted chart has; the page lays them out.
    """
    title, caption = TEXTS[key]
    spec = chart.to_dict(validate=True) | {"title": title, "description": alt, "config": CONFIG}
    if panels:
        spec["usermeta"] = {"panels": panels}
    return Figure(key, caption, alt, spec, tuple(rows))


def named_chart(key: str) -> Any:
    """A chart over the rows that the page stores under `key`."""
    alt = report_package("altair")
    return alt.Chart(alt.NamedData(name=key), name=key.replace("-", "_"))


def method_scales(methods: Sequence[MethodResult]) -> dict[str, Any]:
    """Colour and shape of each method: the same in every chart of the page.

    Where one K is shown at a time, those of a family are the same for every K.
    """
    alt = report_package("altair")
    field = "family" if several_k(methods) else "method"
    names = list(dict.fromkeys(m.label if field == "family" else m.name for m in methods))
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(names))]
    shapes = [SHAPES[i % len(SHAPES)] for i in range(len(names))]
    return {
        "color": alt.Color(f"{field}:N", scale=alt.Scale(domain=names, range=colours)),
        "shape": alt.Shape(f"{field}:N", scale=alt.Scale(domain=names, range=shapes)),
    }


def of_shown_k(chart: Any, methods: Sequence[MethodResult]) -> Any:
    """The chart without the methods of another K than the one that the reader chose; end to end stays."""
    if not several_k(methods):
        return chart
    chosen = f"{SHOWN_K} === {EVERY_K} || datum.num_modules === 1 || datum.num_modules === {SHOWN_K}"
    dash = f"{SHOWN_K} === {EVERY_K} ? datum.num_modules : 1"
    shown = report_package("altair").param(name=SHOWN_K, value=several_k(methods)[-1])
    return chart.transform_filter(chosen).transform_calculate(dash=dash).add_params(shown)


def dashes(methods: Sequence[MethodResult]) -> dict[str, Any]:
    """Lines are solid while one K is shown; where all are, each K has its dashes."""
    several = several_k(methods)
    if not several:
        return {}
    alt = report_package("altair")
    ranges = [list(DASHES[i % len(DASHES)]) for i in range(len(several) + 1)]
    scale = alt.Scale(domain=[1, *several], range=ranges)
    return {"strokeDash": alt.StrokeDash("dash:O", scale=scale, legend=None)}


def listed(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values in one line, for those who cannot see a chart."""
    return "; ".join(f"{name} {value}" for name, value in pairs)


def tooltips(*fields: tuple[str, str]) -> list[Any]:
    """Field and heading of each line of the box that appears over a mark."""
    alt = report_package("altair")
    number = {"type": "quantitative", "format": ".4~g"}
    names = ("method", "block", "capacity", "kind", "row", "column", "gradient")
    return [
        alt.Tooltip(field=field, title=title, **(number if field not in names else {"type": "nominal"}))
        for field, title in fields
    ]


def named_row(names: Sequence[str], field: str, *, format: str, unit: str) -> tuple[Any, Any]:
    """A row per method with its name and value above it: an axis of names would leave phones no room."""
    alt = report_package("altair")
    axis = alt.Axis(labels=False, ticks=False, domain=False, grid=True)
    row = alt.Y("method:N", sort=list(names), title=None, axis=axis)
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
