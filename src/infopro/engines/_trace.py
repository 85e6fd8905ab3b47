"""The spans of one process, and the files that hold them: Chrome trace events."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from infopro.errors import BadRun

__all__ = [
    "COMPUTE",
    "IDLE",
    "KINDS",
    "Kind",
    "Span",
    "StageTimeline",
    "innermost",
    "merge",
    "nesting",
    "read_timelines",
    "write_timeline",
]

Kind = Literal[
    "forward",
    "backward",
    "optimizer",
    "evaluate",
    "data",  # fetching images, where they enter the network
    "send",  # handing features over
    "checkpoint",
    "receive",  # idle: nothing has come from the module before
    "back-pressure",  # idle: the next module has not taken earlier features
    "reduce",  # idle: gradients of the other replicas are missing
]
KINDS: tuple[Kind, ...] = get_args(Kind)
COMPUTE: tuple[Kind, ...] = ("forward", "backward", "optimizer", "evaluate")
IDLE: tuple[Kind, ...] = ("receive", "back-pressure", "reduce")
_FORMAT = "infopro timeline 1"


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one process's time."""

    kind: Kind
    begin_ns: int  # since 1970
    end_ns: int
    step: int | None = None  # 0-based, as the recorder was told


@dataclass(frozen=True)
class StageTimeline:
    """All that one process has recorded."""

    stage: int  # 0-based
    replica: int  # 0-based
    spans: tuple[Span, ...]  # by their begin
    dropped: int = 0  # spans that there was no room for
    hole: tuple[int, int] | None = None  # ns since 1970: whatever was dropped lies in between

    @property
    def name(self) -> str:
        """As people count: from 1; the first replica goes without a number."""
        return f"stage {self.stage + 1}" + (f", replica {self.replica + 1}" if self.replica else "")


def nesting(span: Span) -> tuple[int, int]:
    """What lies around another span comes before it."""
    return span.begin_ns, -span.end_ns


def _events(timeline: StageTimeline, start: int) -> list[dict[str, Any]]:
    """Trace events in microseconds since `start`: small numbers, so that a double holds the nanoseconds."""
    # 0 is the idle process for some readers
    who = {"pid": timeline.stage * 10_000 + timeline.replica + 1, "tid": 1}
    names = {"process_name": {"name": timeline.name}, "process_sort_index": {"sort_index": who["pid"]}}
    events = [{"name": name, "ph": "M", **who, "args": args} for name, args in names.items()]
    for span in timeline.spans:
        category = "idle" if span.kind in IDLE else "work"
        length = {"ts": (span.begin_ns - start) / 1000, "dur": (span.end_ns - span.begin_ns) / 1000}
        step = {} if span.step is None else {"step": span.step}
        events.append({"name": span.kind, "cat": category, "ph": "X", **length, **who, "args": step})
    return events


def write_timeline(timeline: StageTimeline, path: Path) -> Path:
    """Write one process's trace, with all that `read_timelines` needs; raises as `Timeline.write` does."""
    start = timeline.spans[0].begin_ns if timeline.spans else 0
    stored = {"format": _FORMAT, "stage": timeline.stage, "replica": timeline.replica, "start_ns": start}
    stored |= {"dropped": timeline.dropped, "hole_ns": timeline.hole}
    return _write_trace(path, _events(timeline, start), stored)


def _write_trace(path: Path, events: list[dict[str, Any]], stored: dict[str, Any]) -> Path:
    content = {"displayTimeUnit": "ms", "otherData": stored, "traceEvents": events}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(content, allow_nan=False, separators=(",", ":")), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise BadRun(
            f"the timeline {path} cannot be written", got=error, remedy="name another file"
        ) from error
    finally:
        with suppress(OSError):  # it is not there, or never could be
            part.unlink()
    return path


def merge(timelines: Sequence[StageTimeline], path: Path | str) -> Path:
    """Write one Chrome trace of all processes; `read_timelines` passes over it.

    Raises:
        BadRun: the file cannot be written.
    """
    start = min((span.begin_ns for timeline in timelines for span in timeline.spans), default=0)
    events = [event for timeline in timelines for event in _events(timeline, start)]
    dropped = {timeline.name: timeline.dropped for timeline in timelines}
    return _write_trace(Path(path), events, {"format": "merged", "start_ns": start, "dropped": dropped})


def read_timelines(folder: Path | str) -> tuple[StageTimeline, ...]:
    """The timelines that `Timeline.write` left in a folder, by stage and replica; other JSON is passed over.

    Raises:
        BadRun: none is there, one is broken, or two are of the same process.
    """
    files = sorted(Path(folder).glob("*.json"))
    found = {file: timeline for file in files if (timeline := _read(file)) is not None}
    if not found:
        raise BadRun("no timeline", got=folder, remedy="pass the folder that a run wrote its timelines to")
    places = Counter((timeline.stage, timeline.replica) for timeline in found.values())
    twice = [file.name for file, own in found.items() if places[own.stage, own.replica] > 1]
    if twice:
        raise BadRun(
            f"timelines of the same process in {folder}", got=", ".join(twice), remedy="keep those of one run"
        )
    return tuple(sorted(found.values(), key=lambda timeline: (timeline.stage, timeline.replica)))


def _read(file: Path) -> StageTimeline | None:
    """None where the file is JSON, but no timeline of one process."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        stored = content.get("otherData") if isinstance(content, dict) else None
        if not isinstance(stored, dict) or stored.get("format") != _FORMAT:
            return None
        start, hole = int(stored["start_ns"]), stored["hole_ns"]
        spans = [_span(event, start) for event in content["traceEvents"] if event["ph"] == "X"]
        return StageTimeline(
            stage=int(stored["stage"]),
            replica=int(stored["replica"]),
            spans=tuple(sorted(spans, key=nesting)),
            dropped=int(stored["dropped"]),
            hole=None if hole is None else (int(hole[0]), int(hole[1])),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BadRun(f"the timeline {file} cannot be read", got=reason, remedy="delete it") from error


def _span(event: dict[str, Any], start: int) -> Span:
    kind, step = event["name"], event["args"].get("step")
    if kind not in KINDS or event["dur"] < 0:
        raise ValueError(f"no such span: {kind!r}, {event['dur']} µs")
    begin, length = round(event["ts"] * 1000), round(event["dur"] * 1000)
    return Span(kind, start + begin, start + begin + length, None if step is None else int(step))


def innermost(spans: Iterable[Span]) -> list[Span]:
    """Cuts spans so that none overlap: each moment belongs to the span that began last, in order of time.

    Example:
        >>> pieces = innermost([Span("forward", 0, 9), Span("send", 4, 6)])
        >>> [(piece.kind, piece.begin_ns, piece.end_ns) for piece in pieces]
        [('forward', 0, 4), ('send', 4, 6), ('forward', 6, 9)]
    """
    pieces: list[Span] = []
    opened: list[Span] = []  # the one that began last is on top
    now = 0

    def pass_until(end: int | None) -> None:
        nonlocal now
        while opened and (end is None or now < end):
            top = opened[-1]
            until = top.end_ns if end is None else min(top.end_ns, end)
            if now < until:
                pieces.append(replace(top, begin_ns=now, end_ns=until))
                now = until
            if top.end_ns <= now:
                opened.pop()

    for span in sorted(spans, key=nesting):
        pass_until(span.begin_ns)
        now = max(now, span.begin_ns)
        opened.append(span)
    pass_until(None)
    return pieces
