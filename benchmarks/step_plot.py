"""Draws one comparison of step.py: memory to the right, time upwards, both relative to end to end."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
from step_goals import Comparison

__all__ = ["draw"]

SIZE = (760, 500)  # pixels
COLORS = {
    "end to end": "#000000",
    "accumulation": "#8c8c8c",
    "checkpointing": "#1f5fb4",
    "offloading": "#00a0b0",
    "compiled": "#7b4ab5",
    "deep supervision": "#c49a00",
    "local greedy": "#2e8b57",
    "local DGL": "#90b83e",
    "local InfoPro softmax": "#d62728",
    "local InfoPro contrast": "#f28e2b",
    "local + checkpointing": "#8c1d4f",
}
SERIES = ("accumulation", "local greedy", "local DGL", "local InfoPro softmax", "local InfoPro contrast")
CHARACTER, LINE, GAP = 6.2, 12.0, 7.0  # pixels: of a label of 11 points, and to its point


def draw(comparison: Comparison, title: str, file: Path) -> None:
    """Write a picture: every method a labelled point, the Pareto front a line."""
    points = comparison.points
    limits = [_limits([m for _, m, _ in points]), _limits([t for _, _, t in points])]
    x = alt.X("memory:Q", **_axis("peak memory", limits[0]))
    y = alt.Y("time:Q", **_axis("time of a step", limits[1]))
    data: list[dict[str, Any]] = [
        {"family": r.family, "label": r.label, "memory": m, "time": t} for r, m, t in points
    ]
    families = [family for family in COLORS if any(d["family"] == family for d in data)]
    colors = alt.Scale(domain=families, range=[COLORS[family] for family in families])
    shapes = alt.Scale(domain=families, range=_shapes(families))
    legend = alt.Legend(symbolOpacity=1, symbolStrokeWidth=0)
    color = alt.Color("family:N", title=None, scale=colors, legend=legend)
    shape = alt.Shape("family:N", title=None, scale=shapes, legend=legend)
    front = [{"memory": m, "time": t, "order": i} for i, (_, m, t) in enumerate(comparison.front)]
    series = [{**d, "order": int(d["label"])} for d in data if d["family"] in SERIES]
    labels = _labels(data, limits)
    wide: Any = {"interpolate": "step-after", "size": 7, "color": "#e4dcc4"}
    layers = [
        _chart(front).mark_line(**wide).encode(x, y, order="order:Q"),
        _chart(series).mark_line(size=1, opacity=0.5).encode(x, y, color, order="order:Q"),
        _chart(data).mark_point(filled=True, size=70, opacity=1).encode(x, y, color, shape),
        _chart(labels).mark_text(fontSize=11, baseline="middle").encode(x, y, color, text="label:N"),
    ]
    about = "wide line: Pareto front; numbers: parts, segments or modules K; logarithmic axes"
    heading = alt.Title(title, subtitle=about, anchor="start")
    chart = alt.layer(*layers).properties(width=SIZE[0], height=SIZE[1], title=heading, background="white")
    file.parent.mkdir(parents=True, exist_ok=True)
    chart.save(str(file), scale_factor=1.5)


def _chart(rows: list[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(alt.Data(values=rows))  # type: ignore[no-untyped-call]


def _shapes(families: Sequence[str]) -> list[str]:
    return ["circle" if family.startswith("local") else "diamond" for family in families]


def _limits(values: Sequence[float]) -> tuple[float, float]:
    return min([*values, 1.0]) / 1.12, max([*values, 1.0]) * 1.12


def _axis(title: str, limits: tuple[float, float]) -> dict[str, Any]:
    wide = limits[1] / limits[0] > 4
    steps = (1, 1.5, 2, 3, 5, 7) if wide else (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    ticks = [round(step * 10.0**power, 4) for power in (-2, -1, 0, 1) for step in steps]
    shown = [tick for tick in ticks if limits[0] <= tick <= limits[1]]
    return {
        "title": f"{title}, end to end = 1",
        "scale": alt.Scale(type="log", domain=list(limits), nice=False),
        "axis": alt.Axis(values=shown, format="~g", gridColor="#eeeeee"),
    }


def _labels(data: Sequence[dict[str, Any]], limits: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
    """A place for each label near its point, where it covers least of other labels and points."""
    at = [(_pixel(d["memory"], limits[0], SIZE[0]), _pixel(d["time"], limits[1], SIZE[1])) for d in data]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in at]
    placed = []
    for point, (x, y) in zip(data, at, strict=True):
        half = CHARACTER * len(point["label"]) / 2
        boxes = [_box(x + dx, y + dy, half) for dx, dy in _offsets(half)]
        costs = [sum(_overlap(box, other) for other in taken) + _outside(box) for box in boxes]
        box = boxes[costs.index(min(costs))]
        taken.append(box)
        place = {
            "memory": _value((box[0] + box[2]) / 2, limits[0], SIZE[0]),
            "time": _value((box[1] + box[3]) / 2, limits[1], SIZE[1]),
        }
        placed.append({**point, **place})
    return placed


Box = tuple[float, float, float, float]


def _offsets(half: float) -> list[tuple[float, float]]:
    """Right of the point first, then around it, then farther away."""
    near = [(half + GAP, 0), (0, LINE), (0, -LINE), (-half - GAP, 0)]
    corners = [(sx * (half + 4), sy * LINE) for sx, sy in itertools.product((1, -1), (1, -1))]
    return near + corners + [(0, 2 * LINE), (0, -2 * LINE), (half + 3 * GAP, 0), (-half - 3 * GAP, 0)]


def _box(x: float, y: float, half: float) -> Box:
    return x - half, y - LINE / 2, x + half, y + LINE / 2


def _overlap(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def _outside(box: Box) -> float:
    inside = _overlap(box, (0.0, 0.0, float(SIZE[0]), float(SIZE[1])))
    return (box[2] - box[0]) * (box[3] - box[1]) - inside


def _pixel(value: float, limits: tuple[float, float], size: int) -> float:
    return size * math.log(value / limits[0]) / math.log(limits[1] / limits[0])


def _value(pixel: float, limits: tuple[float, float], size: int) -> float:
    return limits[0] * math.exp(math.log(limits[1] / limits[0]) * pixel / size)
