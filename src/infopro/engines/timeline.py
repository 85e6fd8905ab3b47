"""What each process did and when, and how much of it was waiting.

The files are Chrome trace events: https://ui.perfetto.dev and chrome://tracing open them.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType

from infopro.engines._trace import (
    COMPUTE,
    IDLE,
    KINDS,
    Kind,
    Span,
    StageTimeline,
    innermost,
    merge,
    nesting,
    read_timelines,
    write_timeline,
)
from infopro.errors import BadConfiguration, BadInput, BadRun, UnknownName

__all__ = [
    "COMPUTE",
    "IDLE",
    "KINDS",
    "IdleShare",
    "IdleShares",
    "Kind",
    "Span",
    "StageTimeline",
    "Timeline",
    "filled_at",
    "idle_shares",
    "innermost",
    "merge",
    "read_timelines",
]

_NANO = 1e-9


class Timeline:
    """Records the spans of one process; a span costs a few microseconds.

    The clock can be compared between processes of one machine: wall-clock time, read once, and continued by a
    counter that never jumps. Between machines it is as good as their clocks agree. Spans may lie inside each
    other: a moment belongs to the innermost. Any thread may record.

    Args:
        stage: the (first) module that this process owns, 0-based.
        replica: 0-based.
        most_events: spans that are kept: half of them the first ones, half the latest.

    Raises:
        BadConfiguration: a negative number, or room for less than two events.

    Example:
        >>> timeline = Timeline(0)
        >>> with timeline.span("forward", step=0):
        ...     pass
        >>> [(span.kind, span.step) for span in timeline.recorded().spans]
        [('forward', 0)]
    """

    def __init__(self, stage: int, *, replica: int = 0, most_events: int = 50_000):
        if min(stage, replica) < 0 or most_events < 2:
            raise BadConfiguration(
                "a timeline cannot be kept like this",
                got=f"stage {stage}, replica {replica}, most_events {most_events}",
                allowed="stage and replica from 0, most_events from 2",
            )
        self.stage, self.replica, self.most_events = stage, replica, most_events
        self._offset = time.time_ns() - time.perf_counter_ns()
        self._first: list[Span] = []
        self._latest: deque[Span] = deque()
        self._dropped = 0
        self._hole: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def now_ns(self) -> int:
        """This timeline's clock, in nanoseconds since 1970: for spans that are measured elsewhere."""
        return time.perf_counter_ns() + self._offset

    def span(self, kind: Kind, step: int | None = None) -> _Open:
        """A context manager: the time spent in it is recorded, also where it ends with an exception."""
        if kind not in KINDS:
            raise UnknownName("kind of span", kind, KINDS)
        return _Open(self, kind, step)

    def add(self, kind: Kind, begin_ns: int, end_ns: int, step: int | None = None) -> None:
        """Record a span that was measured elsewhere, by the clock of `now_ns`.

        Raises:
            UnknownName: another kind than those of `KINDS`.
            BadInput: a span that ends before it begins.
        """
        if kind not in KINDS:
            raise UnknownName("kind of span", kind, KINDS)
        if end_ns < begin_ns:
            raise BadInput("a span ends before it begins", got=f"{kind} from {begin_ns} to {end_ns} ns")
        self._keep(Span(kind, begin_ns, end_ns, step))

    def recorded(self) -> StageTimeline:
        """What has been recorded so far."""
        with self._lock:
            spans = sorted([*self._first, *self._latest], key=nesting)
            return StageTimeline(self.stage, self.replica, tuple(spans), self._dropped, self._hole)

    def write(self, path: Path | str) -> Path:
        """Write a Chrome trace; the file appears whole or not at all.

        Raises:
            BadRun: the file cannot be written.
        """
        return write_timeline(self.recorded(), Path(path))

    def _keep(self, span: Span) -> None:
        with self._lock:
            if len(self._first) < self.most_events // 2:
                self._first.append(span)
                return
            self._latest.append(span)
            if len(self._first) + len(self._latest) > self.most_events:
                lost = self._latest.popleft()
                begin, end = self._hole or (lost.begin_ns, lost.end_ns)
                self._hole = (min(begin, lost.begin_ns), max(end, lost.end_ns))
                self._dropped += 1


class _Open:
    """A span that has begun; a class, because `contextmanager` costs twice as much."""

    __slots__ = ("_begin_ns", "_kind", "_step", "_timeline")

    def __init__(self, timeline: Timeline, kind: Kind, step: int | None):
        self._timeline, self._kind, self._step = timeline, kind, step

    def __enter__(self) -> None:
        self._begin_ns = self._timeline.now_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        timeline = self._timeline
        timeline._keep(Span(self._kind, self._begin_ns, timeline.now_ns(), self._step))


@dataclass(frozen=True)
class IdleShare:
    """How one process spent its time after the filling, in seconds that add up to `seconds`."""

    stage: int  # 0-based
    replica: int  # 0-based
    name: str
    seconds: float  # its own time: what was dropped left out
    compute: float  # forward, backward, optimizer, evaluate
    data: float
    send: float
    checkpoint: float
    receive: float  # idle, like all that follow
    back_pressure: float
    reduce: float
    other: float  # in no span
    share: float  # idle / seconds; 0 ... 1
    dropped: int = 0  # spans that there was no room for


@dataclass(frozen=True)
class IdleShares:
    """The bubble of every process, and of all together."""

    stages: tuple[IdleShare, ...]  # by stage and replica
    share: float  # all idle time / all time; 0 ... 1
    filling_seconds: float  # from the first work to the moment at which every stage has features


def filled_at(timelines: Sequence[StageTimeline]) -> int:
    """When every stage had its first features, in ns since 1970: the last stage's first "receive" ended.

    With several replicas of the last stage, the latest of them counts. One that has recorded no "receive"
    counts from the begin of its first work.

    Raises:
        BadRun: the last stage has recorded neither.
    """
    last = max((timeline.stage for timeline in timelines), default=0)
    first = [_first_features(timeline) for timeline in timelines if timeline.stage == last]
    known = [moment for moment in first if moment is not None]
    if not known:
        raise BadRun("the timelines show no work of the last stage", remedy="train at least one step")
    return max(known)


def _first_features(timeline: StageTimeline) -> int | None:
    received = (span.end_ns for span in timeline.spans if span.kind == "receive")
    worked = (span.begin_ns for span in timeline.spans if span.kind in COMPUTE)
    return next(chain(received, worked), None)


def idle_shares(timelines: Sequence[StageTimeline]) -> IdleShares:
    """The bubble share: which part of its time a stage waits, once the pipeline is full.

    A stage's time runs from `filled_at`, one moment for all stages, to the end of its own last forward,
    backward, optimizer or evaluate. Idle is what lies in a "receive", a "back-pressure", a "reduce" or in no
    span at all (`other`), so that nothing looks better for not being recorded. Everything else is work:
    "evaluate", "data", "send" and "checkpoint", too. A moment belongs to the innermost span.

    Where spans were dropped, the time between the first and the last of them is left out. A stage that was
    through before the pipeline was full has no time of its own: 0 seconds, share 0. A single process waits
    for nobody: its share is 0, whatever lies between its spans. The share of all is all idle time over all
    time.

    Raises:
        BadRun: the last stage has recorded neither "receive" nor work.

    Example:
        >>> first = StageTimeline(0, 0, (Span("forward", 0, 40), Span("forward", 60, 100)))
        >>> last = StageTimeline(1, 0, (Span("receive", 0, 40), Span("forward", 40, 100)))
        >>> shares = idle_shares([first, last])
        >>> [round(stage.share, 2) for stage in shares.stages], round(shares.share, 2)
        ([0.33, 0.0], 0.17)
    """
    filled = filled_at(timelines)
    alone = len(timelines) == 1
    ordered = sorted(timelines, key=lambda timeline: (timeline.stage, timeline.replica))
    stages = tuple(_idle_share(timeline, filled, alone=alone) for timeline in ordered)
    seconds = sum(stage.seconds for stage in stages)
    idle = sum(stage.share * stage.seconds for stage in stages)
    worked = (span.begin_ns for timeline in timelines for span in timeline.spans if span.kind not in IDLE)
    filling = max(0, filled - min(worked, default=filled))
    return IdleShares(stages, idle / seconds if seconds else 0.0, filling * _NANO)


def _idle_share(timeline: StageTimeline, filled: int, *, alone: bool) -> IdleShare:
    windows = _windows(timeline, filled)
    total = sum(end - begin for begin, end in windows)
    spent: Counter[Kind] = Counter()
    for piece in innermost(timeline.spans):
        for begin, end in windows:
            spent[piece.kind] += max(0, min(end, piece.end_ns) - max(begin, piece.begin_ns))
    other = total - spent.total()
    idle = 0 if alone else other + sum(spent[kind] for kind in IDLE)
    return IdleShare(
        stage=timeline.stage,
        replica=timeline.replica,
        name=timeline.name,
        seconds=total * _NANO,
        compute=sum(spent[kind] for kind in COMPUTE) * _NANO,
        data=spent["data"] * _NANO,
        send=spent["send"] * _NANO,
        checkpoint=spent["checkpoint"] * _NANO,
        receive=spent["receive"] * _NANO,
        back_pressure=spent["back-pressure"] * _NANO,
        reduce=spent["reduce"] * _NANO,
        other=other * _NANO,
        share=idle / total if total else 0.0,
        dropped=timeline.dropped,
    )


def _windows(timeline: StageTimeline, filled: int) -> list[tuple[int, int]]:
    """The stage's own time: after the filling, before its end, and outside the hole."""
    end = max((span.end_ns for span in timeline.spans if span.kind in COMPUTE), default=filled)
    lost_from, lost_until = timeline.hole or (end, end)
    parts = [(filled, min(end, lost_from)), (max(filled, lost_until), end)]
    return [(begin, until) for begin, until in parts if begin < until]
