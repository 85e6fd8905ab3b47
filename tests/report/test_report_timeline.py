"""The timeline's page: the right window, the recorded numbers, whole, offline, escaped."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from infopro.engines.timeline import IDLE, KINDS, Span, StageTimeline, Timeline, idle_shares
from infopro.errors import BadInput, BadRun, MissingPackage
from infopro.report import _html, _timeline_charts
from infopro.report._html import packed
from infopro.report.timeline import (
    format_idle_shares,
    shares_figure,
    timeline_figure,
    write_timeline_page,
)

START = 1_760_000_000 * 10**9
MILLI = 10**6
FIRST, LAST = 20, 26  # ms of a step


def pipeline(
    steps: int = 40, *, most_events: int = 50_000, test_after: int | None = None
) -> tuple[StageTimeline, ...]:
    """Three stages, each 10 ms behind the one before; the last is 30 % slower, and the others wait for it."""
    timelines = [Timeline(stage, most_events=most_events) for stage in range(3)]
    for stage, timeline in enumerate(timelines):
        clock = START
        if stage:
            timeline.add("receive", clock, clock + 10 * stage * MILLI, 0)
        clock += 10 * stage * MILLI
        for step in range(steps):
            if step == test_after:
                timeline.add("evaluate", clock, clock + 900 * MILLI, 0)
                clock += 900 * MILLI
            own = LAST if stage == 2 else FIRST
            timeline.add("forward", clock, clock + (own - 12) * MILLI, step)
            timeline.add("backward", clock + (own - 12) * MILLI, clock + (own - 2) * MILLI, step)
            timeline.add("optimizer", clock + (own - 2) * MILLI, clock + own * MILLI, step)
            if own < LAST:
                timeline.add("back-pressure", clock + own * MILLI, clock + LAST * MILLI, step + 1)
            clock += LAST * MILLI
    return tuple(timeline.recorded() for timeline in timelines)


def domain(figure: Any) -> list[float]:
    found: list[float] = figure.spec["layer"][0]["encoding"]["x"]["scale"]["domain"]
    return found


def steps_drawn(figure: Any, stage: str) -> list[int]:
    begin, end = domain(figure)
    rows = [row for row in figure.rows if row["stage"] == stage and row["number"] is not None]
    return [row["number"] for row in rows if begin - 1e-9 <= row["begin_seconds"] < end - 1e-9]


def test_the_filling_is_drawn_from_the_first_work_to_three_steps_after_it() -> None:
    figure = timeline_figure(pipeline(), part="filling")
    assert domain(figure) == pytest.approx([0, (20 + 3 * LAST) / 1000])
    assert steps_drawn(figure, "stage 3") == [1, 2, 3]
    (waiting,) = (row for row in figure.rows if (row["stage"], row["kind"]) == ("stage 3", "receive"))
    assert (waiting["begin_seconds"], waiting["end_seconds"]) == pytest.approx((0, 0.02))
    lines = [layer for layer in figure.spec["layer"] if layer["mark"]["type"] == "rule"]
    assert [line["encoding"]["x"]["datum"] for line in lines] == [pytest.approx(0.02)]


@pytest.mark.parametrize("steps", [40, 3000])
def test_six_steps_of_the_middle_are_drawn(steps: int) -> None:
    figure = timeline_figure(pipeline(steps), part="middle")
    begin, end = domain(figure)
    assert end - begin == pytest.approx(6 * LAST / 1000)
    numbers = steps_drawn(figure, "stage 3")
    assert len(numbers) == 6
    assert abs(sum(numbers) / 6 - steps / 2) < 2
    assert len(figure.rows) < 120


def test_no_test_in_the_middle_of_training() -> None:
    figure = timeline_figure(pipeline(40, test_after=20), part="middle")
    assert "evaluate" not in {row["kind"] for row in figure.rows}
    assert len(steps_drawn(figure, "stage 3")) == 6


def test_nothing_dropped_in_the_middle_of_training() -> None:
    timelines = pipeline(3000, most_events=200)
    begin, end = domain(timeline_figure(timelines, part="middle"))
    for timeline in timelines:
        assert timeline.hole is not None
        lost, back = ((moment - START) / 1e9 for moment in timeline.hole)
        assert end <= lost + 1e-9 or begin >= back - 1e-9
    assert end - begin == pytest.approx(6 * LAST / 1000)


def test_rows_are_the_recorded_spans() -> None:
    timelines = pipeline()
    figure = timeline_figure(timelines, part="middle")
    for row in figure.rows:
        (stage,) = (timeline for timeline in timelines if timeline.name == row["stage"])
        found = [
            (span.kind, None if span.step is None else span.step + 1, (span.end_ns - span.begin_ns) / MILLI)
            for span in stage.spans
            if (span.begin_ns - START) / 1e9 == pytest.approx(row["begin_seconds"], abs=1e-9)
        ]
        assert found == [(row["kind"], row["step"], pytest.approx(row["milliseconds"]))]
    assert {row["number"] is not None for row in figure.rows if row["kind"] != "forward"} == {False}


def test_a_wait_inside_of_a_forward_is_drawn_once_and_numbered_once() -> None:
    spans = (Span("forward", 0, 10, 4), Span("back-pressure", 4, 7, 4), Span("backward", 10, 20, 4))
    rows = timeline_figure([StageTimeline(0, 0, spans)], part="middle").rows
    assert [row["kind"] for row in rows] == ["forward", "back-pressure", "forward", "backward"]
    assert [row["number"] for row in rows] == [5, None, None, None]


def test_modules_in_one_process_are_one_step() -> None:
    spans = [Span("forward", n * 10, n * 10 + 9, n // 2) for n in range(80)]
    figure = timeline_figure([StageTimeline(0, 0, tuple(spans))], part="middle")
    begin, end = domain(figure)
    assert end - begin == pytest.approx(6 * 20e-9)


def test_waiting_is_hollow_and_work_is_not() -> None:
    spans = tuple(Span(kind, n * 10, n * 10 + 10, n) for n, kind in enumerate(KINDS))
    figure = timeline_figure([StageTimeline(0, 0, spans), StageTimeline(1, 0, spans)], part="filling")
    looks = {
        name: figure.spec["layer"][0]["encoding"][name]["scale"] for name in ("fill", "stroke", "strokeDash")
    }
    assert looks["fill"]["domain"] == [kind for kind in KINDS if kind in {row["kind"] for row in figure.rows}]
    fills = dict(zip(looks["fill"]["domain"], looks["fill"]["range"], strict=True))
    assert set(fills) >= {"forward", "receive", "back-pressure", "reduce"}
    for kind, colour in fills.items():
        assert re.fullmatch("#[0-9a-f]{6}", colour) if kind not in IDLE else int(colour[7:], 16) < 0x40
    idle = [kind for kind in fills if kind in IDLE]
    dashes = dict(zip(looks["strokeDash"]["domain"], looks["strokeDash"]["range"], strict=True))
    assert len({tuple(dashes[kind]) for kind in idle}) == len(idle)


def test_colours_are_legible_in_light_and_dark() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    style = resources.files("infopro.report").joinpath("page.css").read_text()
    pages = re.findall(r"--page: (#\w+);", style)
    assert len(pages) == 2
    for ground in pages:
        for colour in (*_timeline_charts.COLOURS.values(), _timeline_charts.GREY):
            dark, light = sorted((luminance(colour), luminance(ground)))
            assert (light + 0.05) / (dark + 0.05) >= 3
    assert set(_timeline_charts.COLOURS) - {"compute"} == {*KINDS} - {*IDLE}


def test_bars_of_shares_add_up() -> None:
    shares = idle_shares(pipeline())
    figure = shares_figure(shares)
    for stage in shares.stages:
        rows = [row for row in figure.rows if row["stage"] == stage.name]
        assert sum(row["percent"] for row in rows) == pytest.approx(100)
        idle = sum(row["percent"] for row in rows if row["part"] in (*IDLE, "other"))
        assert idle == pytest.approx(100 * stage.share)
        assert {row["label"] for row in rows} == {f"{stage.name}: bubble {100 * stage.share:.1f} %"}
    assert "stage 3 0.0 %" in figure.alt


def test_the_table_for_the_terminal() -> None:
    second = 10**9
    timelines = (
        StageTimeline(0, 0, (Span("forward", 0, 6 * second), Span("back-pressure", 6 * second, 8 * second),
                             Span("backward", 8 * second, 14 * second)), dropped=1234),
        StageTimeline(1, 1, (Span("receive", 0, 4 * second), Span("forward", 4 * second, 12 * second))),
    )  # fmt: skip
    assert format_idle_shares(idle_shares(timelines)).splitlines() == [
        "Once the pipeline was full (after 4.00 s), 11.1 % of the stages' time was waiting (bubble share).",
        "seconds             bubble  compute  back-pressure  total",
        "stage 1             20.0 %     8.00           2.00  10.00",
        "stage 2, replica 2   0.0 %     8.00           0.00   8.00",
        "all                 11.1 %    16.00           2.00  18.00",
        "1,234 spans were not kept, for lack of room; their time is left out.",
    ]


def test_one_process_alone() -> None:
    text = format_idle_shares(idle_shares(pipeline()[:1]))
    assert "waits for no other" in text.splitlines()[0]
    assert len(text.splitlines()) == 3


class Parsed(HTMLParser):
    """Tags with their attributes, the text a reader sees, and what stands in each script."""

    def __init__(self, source: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: dict[str, str] = {}
        self._open = ("", "")
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = (tag, dict(attrs).get("id") or "")

    def handle_endtag(self, tag: str) -> None:
        self._open = ("", "")

    def handle_data(self, data: str) -> None:
        tag, identifier = self._open
        if tag == "script":
            self.scripts[identifier] = self.scripts.get(identifier, "") + data
        elif tag != "style":
            self.text += data


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    folder = tmp_path_factory.mktemp("pages")

    def write(timelines: tuple[StageTimeline, ...], title: str = "A run", command: str = "") -> str:
        path = write_timeline_page(timelines, folder / "deep" / "page.html", title=title, command=command)
        assert [file.name for file in path.parent.iterdir()] == ["page.html"]
        return path.read_text(encoding="utf-8")

    return write


def test_everything_stands_in_the_page(written: Callable[..., str]) -> None:
    timelines = pipeline()
    parsed = Parsed(written(timelines, "ResNet in 3 modules", "infopro timeline RUN"))
    words = " ".join(parsed.text.split())
    shares = idle_shares(timelines)
    assert "ResNet in 3 modules" in words and "infopro timeline RUN" in words
    assert f"{100 * shares.share:.1f} % of the stages' time was waiting" in words
    assert "Stage 3 waits least (0.0 %)" in words
    for stage in shares.stages:
        assert f"{stage.name} {100 * stage.share:.1f} % {stage.compute:.2f}" in words
    figures = [attributes["id"] for tag, attributes in parsed.tags if tag == "figure"]
    assert figures == ["filling", "middle", "shares"]
    series = json.loads(parsed.scripts["series"])["series"]
    assert set(series) == set(json.loads(parsed.scripts["specs"])) == set(figures)
    assert series["shares"] == packed(shares_figure(shares).rows)


def test_nothing_is_requested(written: Callable[..., str]) -> None:
    source = written(pipeline())
    parsed = Parsed(source)
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    assert "default-src 'none'" in source
    assert source.count("window.vegaEmbed=") == 1
    assert len(source.encode()) < 1_500_000


def test_a_long_run_has_no_long_page(written: Callable[..., str]) -> None:
    assert len(written(pipeline(3000))) < len(written(pipeline(40))) + 20_000


def test_same_timelines_same_bytes(written: Callable[..., str]) -> None:
    assert written(pipeline()) == written(pipeline()) != written(pipeline(41))


def test_names_stay_text(written: Callable[..., str]) -> None:
    evil = '</script><script>alert(1)</script> & "it\'s" <b>'
    source = written(pipeline(), evil, evil)
    parsed = Parsed(source)
    assert "<script>alert" not in source
    assert sum(tag == "script" for tag, _ in parsed.tags) == 4
    assert not any(tag == "b" for tag, _ in parsed.tags)
    assert parsed.text.count(evil) == 3  # title, heading, command
    assert json.loads(parsed.scripts["series"])["command"] == evil


@pytest.mark.parametrize("steps", [1, 2, 6, 7])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_short_runs_and_few_stages_have_a_page(steps: int, number: int, written: Callable[..., str]) -> None:
    parsed = Parsed(written(pipeline(steps)[:number]))
    assert sum(tag == "figure" for tag, _ in parsed.tags) == 3
    assert ("waits for no other" in parsed.text) == (number == 1)


def test_stages_that_were_through_too_early_have_no_bar(written: Callable[..., str]) -> None:
    first = StageTimeline(0, 0, (Span("forward", 0, 10, 0),))
    last = StageTimeline(1, 0, (Span("receive", 0, 10), Span("forward", 10, 30, 0)))
    assert {row["stage"] for row in shares_figure(idle_shares([first, last])).rows} == {"stage 2"}
    only_waited = replace(last, spans=last.spans[:1])
    assert 'id="shares"' not in written((first, only_waited))


def test_dropped_spans_are_told(written: Callable[..., str]) -> None:
    timelines = pipeline(3000, most_events=200)
    lost = sum(timeline.dropped for timeline in timelines)
    assert f"{lost:,} spans were not kept" in Parsed(written(timelines)).text


def test_wrong_calls(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is a folder.*timeline\.html"):
        write_timeline_page(pipeline(), tmp_path, title="")
    for timelines in ((), (StageTimeline(0, 0, ()),)):
        with pytest.raises(BadRun, match="no work"):
            write_timeline_page(timelines, tmp_path / "a.html", title="")
        with pytest.raises(BadRun, match="no work"):
            timeline_figure(timelines, part="middle")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["altair", "jinja2", "vl_convert"])
def test_missing_package_names_the_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _html.chart_library.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackage, match=r"infopro\[report\]"):
        write_timeline_page(pipeline(), tmp_path / "a.html", title="")
    assert not list(tmp_path.iterdir())


def test_a_table_needs_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("altair", "jinja2", "vl_convert"):
        monkeypatch.setitem(sys.modules, package, None)
    assert "stage 3" in format_idle_shares(idle_shares(pipeline()))
