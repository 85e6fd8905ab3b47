"""Timelines -> Altair charts: who did what and when, and where the time went."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any, Literal

from infopro.engines.timeline import (
    IDLE,
    KINDS,
    IdleShares,
    StageTimeline,
    filled_at,
    innermost,
)
from infopro.report._drawing import CONFIG, INK, Figure, layers
from infopro.report._packages import report_package
from infopro.report.series import Row

__all__ = ["PARTS", "percent", "shares_figure", "timeline_figure"]

STEPS_SHOWN = 6
NANO = 1e-9
COLOURS = {  # at least 3:1 against the light and the dark page
    "forward": "#3b7dd8",
    "backward": "#d9541e",
    "optimizer": "#1f9d72",
    "evaluate": "#a35fd0",
    "data": "#b8860b",
    "send": "#1a93a8",
    "checkpoint": "#d6479b",
    "compute": "#3b7dd8",
}
GREY = (
    "#7a8290"  # outline of all waiting: hollow, and told apart by dashes and by what little filling there is
)
DASHES = {"back-pressure": [5, 3], "reduce": [2, 2], "other": [1, 3]}
FILLINGS = {"receive": "30", "back-pressure": "18", "reduce": "10", "other": "00"}  # opacity, hexadecimal
PARTS = {  # as they lie in a bar: the field of IdleShare
    "compute": "compute",
    "data": "data",
    "send": "send",
    "checkpoint": "checkpoint",
    "receive": "receive",
    "back-pressure": "back_pressure",
    "reduce": "reduce",
    "other": "other",
}
TEXTS = {  # by key of the figure: title, caption
    "filling": (
        "Filling the pipeline",
        "One row per process; time runs to the right; the number over a bar is its training step, so a step "
        "can be followed down the rows. At the dashed line the first features have reached the last stage: "
        "the bubble share counts from there.",
    ),
    "middle": (
        "In the middle of training",
        f"The same rows, about {STEPS_SHOWN} steps of them. Every stage works on a step of its own. Filled "
        "bars are work. Hollow bars are waiting: “receive” for the stage before, “back-pressure” for the "
        "next one, “reduce” for the other replicas. Where there is no bar, nothing was recorded.",
    ),
    "shares": (
        "Where each stage's time goes",
        "One bar per process, from the dashed line of the first picture to its last step. “compute” is "
        "forward, backward, optimizer and evaluate; the hollow end of a bar is its bubble. The longest "
        "filled bar belongs to the stage that the others wait for.",
    ),
}


def timeline_figure(timelines: Sequence[StageTimeline], *, part: Literal["filling", "middle"]) -> Figure:
    """Gantt chart with one lane a process: the start, until the pipeline is full, or six steps of the middle.

    Raises:
        BadRun: the last stage has recorded neither features nor work.
        MissingPackage: altair is not installed.
    """
    alt = report_package("altair")
    start, full = _start(timelines), filled_at(timelines)
    window = _filling(timelines) if part == "filling" else _middle(timelines)
    rows = [row for timeline in timelines for row in _rows(timeline, window, start)]
    begin, end = ((moment - start) * NANO for moment in window)
    kinds = {row["kind"] for row in rows}
    lane = _lane([timeline.name for timeline in timelines], labels=True)
    scale = alt.Scale(domain=[begin, end], nice=False)
    tip = [alt.Tooltip(f"{field}:N") for field in ("stage", "kind", "step")]
    bars = (
        alt.Chart()
        .mark_bar(height=24, yOffset=6, clip=True)
        .encode(
            x=alt.X("begin_seconds:Q", title="seconds since the start", scale=scale),
            x2="end_seconds:Q",
            y=lane,
            tooltip=[*tip, alt.Tooltip("milliseconds:Q", format=".3~f")],
            **_looks("kind", [kind for kind in KINDS if kind in kinds]),
        )
    )
    # over the bar: the page's style sheet chooses the ink for the page, not for a bar
    text = alt.Chart().mark_text(align="left", baseline="bottom", dy=-7, fontSize=11, color=INK, clip=True)
    numbers = text.transform_filter("isValid(datum.number)").encode(
        x="begin_seconds:Q", y=lane, text="number:N"
    )
    line = _full_line((full - start) * NANO) if part == "filling" else []
    chart = layers(part, len(timelines), bars, numbers, *line)
    span = f"{begin:.3g} to {end:.3g} seconds after the start"
    return _figure(part, chart, rows, alt=f"Gantt chart of {len(timelines)} processes, {span}.")


def shares_figure(shares: IdleShares) -> Figure:
    """One stacked bar a process, in percent of its time after the filling: work filled, waiting hollow.

    Raises:
        MissingPackage: altair is not installed.
    """
    alt, key = report_package("altair"), "shares"
    rows: list[Row] = [
        {"stage": stage.name, "part": part, "percent": 100 * seconds / stage.seconds, "seconds": seconds}
        | {"place": place, "label": f"{stage.name}: bubble {percent(stage.share)}"}
        for stage in shares.stages
        for place, (part, field) in enumerate(PARTS.items())
        if (seconds := getattr(stage, field)) > 0
    ]
    parts = {row["part"] for row in rows}
    lane = _lane([stage.name for stage in shares.stages], labels=False)
    tip = [alt.Tooltip("stage:N"), alt.Tooltip("part:N"), alt.Tooltip("percent:Q", format=".1f")]
    size = alt.X("percent:Q", title="share of the stage's time (%)", scale=alt.Scale(domain=[0, 100]))
    bars = (
        alt.Chart()
        .mark_bar(height=16)
        .encode(
            x=size,
            y=lane,
            order="place:Q",
            tooltip=[*tip, alt.Tooltip("seconds:Q", format=".3~f")],
            **_looks("part", [part for part in PARTS if part in parts]),
        )
    )
    style = {"align": "left", "baseline": "middle", "dx": 2, "dy": -19, "fontSize": 12, "color": INK}
    name = alt.Chart().transform_aggregate(groupby=["stage", "label"])
    names = name.mark_text(**style).encode(x=alt.value(0), y=lane, text="label:N")
    listed = "; ".join(f"{stage.name} {percent(stage.share)}" for stage in shares.stages)
    chart = layers(key, len(shares.stages), bars, names)
    return _figure(key, chart, rows, alt=f"Stacked bars of each stage's time. Bubble: {listed}.")


def _figure(key: str, chart: Any, rows: list[Row], *, alt: str) -> Figure:
    title, caption = TEXTS[key]
    spec = chart.to_dict(validate=True) | {"title": title, "description": alt, "config": CONFIG}
    return Figure(key, caption, alt, spec, tuple(rows))


def _lane(names: list[str], *, labels: bool) -> Any:
    alt = report_package("altair")
    axis = alt.Axis(labels=labels, labelLimit=0, labelOffset=6, ticks=False, domain=False, grid=not labels)
    return alt.Y("stage:N", sort=names, title=None, axis=axis)


def _looks(field: str, kinds: list[str]) -> dict[str, Any]:
    """Filling and outline by kind; vega merges the three legends into one."""
    alt = report_package("altair")
    outlines = [COLOURS.get(kind, GREY) for kind in kinds]
    fillings = [outline + FILLINGS.get(kind, "") for kind, outline in zip(kinds, outlines, strict=True)]
    dashes = [DASHES.get(kind, [1, 0]) for kind in kinds]

    def scale(values: Sequence[object]) -> Any:
        return alt.Scale(domain=kinds, range=values)

    return {
        "fill": alt.Fill(f"{field}:N", scale=scale(fillings)),
        "stroke": alt.Stroke(f"{field}:N", scale=scale(outlines)),
        "strokeDash": alt.StrokeDash(f"{field}:N", scale=scale(dashes)),
    }


def _full_line(seconds: float) -> list[Any]:
    alt = report_package("altair")
    once = alt.Chart().transform_aggregate(count="count()")  # one mark, not one for every row
    line = once.mark_rule(strokeDash=[4, 4], strokeWidth=1.5, color=GREY)
    name = once.mark_text(align="left", dx=4, dy=-4, fontSize=11, color=INK, text="pipeline full")
    return [line.encode(x=alt.datum(seconds)), name.encode(x=alt.datum(seconds), y=alt.value(0))]


def _start(timelines: Sequence[StageTimeline]) -> int:
    return min((span.begin_ns for timeline in timelines for span in timeline.spans), default=0)


def _rows(timeline: StageTimeline, window: tuple[int, int], start: int) -> list[Row]:
    begin, end = window
    spans = [span for span in timeline.spans if span.end_ns > begin and span.begin_ns < end]
    heads = {span.begin_ns for span in spans if span.kind == "forward"}
    return [
        {
            "stage": timeline.name,
            "kind": piece.kind,
            "step": None if piece.step is None else piece.step + 1,
            "begin_seconds": (piece.begin_ns - start) * NANO,
            "end_seconds": (piece.end_ns - start) * NANO,
            "milliseconds": (piece.end_ns - piece.begin_ns) / 1e6,
            "number": piece.step + 1 if piece.begin_ns in heads and piece.step is not None else None,
        }
        for piece in innermost(spans)
    ]


def _filling(timelines: Sequence[StageTimeline]) -> tuple[int, int]:
    """From the first work to some steps after the moment at which the pipeline is full."""
    worked = (span.begin_ns for timeline in timelines for span in timeline.spans if span.kind not in IDLE)
    filled, over = filled_at(timelines), _over(timelines)
    following = STEPS_SHOWN // 2 * _step_ns(_step_starts(timelines))
    return min(worked, default=filled), min(over, filled + following) if following else over


def _middle(timelines: Sequence[StageTimeline]) -> tuple[int, int]:
    """Six steps of the last stage near the middle of the run: no test, no checkpoint, no hole in between."""
    starts = _step_starts(timelines)
    if len(starts) <= STEPS_SHOWN:
        return filled_at(timelines), _over(timelines)
    found = list(zip(starts, starts[STEPS_SHOWN:], strict=False))
    longest = 1.5 * STEPS_SHOWN * _step_ns(starts)
    holes = [timeline.hole for timeline in timelines if timeline.hole is not None]
    plain = [
        (begin, end)
        for begin, end in found
        if end - begin <= longest and all(end <= lost or begin >= back for lost, back in holes)
    ]
    middle = found[len(found) // 2]
    return min(plain, key=lambda window: abs(window[0] - middle[0]), default=middle)


def _over(timelines: Sequence[StageTimeline]) -> int:
    return max(span.end_ns for timeline in timelines for span in timeline.spans)


def _step_starts(timelines: Sequence[StageTimeline]) -> list[int]:
    """When the last stage began each step; a process with several modules has several forwards in one."""
    last = max(timelines, key=lambda timeline: (timeline.stage, -timeline.replica))
    forwards = [span for span in last.spans if span.kind == "forward"]
    groups = groupby(
        enumerate(forwards), key=lambda item: item[0] if item[1].step is None else (item[1].step,)
    )
    return [next(group)[1].begin_ns for _, group in groups]


def _step_ns(starts: list[int]) -> int:
    lengths = [after - before for before, after in pairwise(starts)]
    return int(statistics.median(lengths)) if lengths else 0


def percent(share: float) -> str:
    """A share between 0 and 1."""
    return f"{100 * share:.1f} %"
