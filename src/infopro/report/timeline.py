"""What the processes of a pipeline did and when: one self-contained page, and a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infopro.engines.timeline import IdleShares, StageTimeline, idle_shares
from infopro.errors import BadInput
from infopro.report._drawing import Figure
from infopro.report._html import rendered, write_whole
from infopro.report._timeline_charts import PARTS, percent, shares_figure, timeline_figure

__all__ = [
    "TimelineParts",
    "format_idle_shares",
    "shares_figure",
    "timeline_figure",
    "timeline_parts",
    "write_timeline_page",
]


@dataclass(frozen=True)
class TimelineParts:
    """What a page says and draws of a timeline."""

    sentence: str
    notes: tuple[str, ...]
    num_stages: int
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    waiting: tuple[Figure, ...]
    times: tuple[Figure, ...]


def write_timeline_page(
    timelines: Sequence[StageTimeline], path: Path | str, *, title: str, command: str = ""
) -> Path:
    """Write one HTML file that shows the timelines, and return its path; it appears whole or not at all.

    It opens from the disk without a network, in light and dark, and prints. However long the run, two
    stretches of it are drawn; `infopro.engines.timeline.merge` writes all of it, for Perfetto.

    Args:
        command: what makes the page again; shown as it is.

    Raises:
        BadRun: the last stage has recorded neither features nor work.
        BadInput: `path` is a folder.
        MissingPackage: a package of the `report` extra is missing.
    """
    target = Path(path)
    if target.is_dir():
        raise BadInput(
            "the page's path is a folder", got=str(target), remedy="name a file, such as timeline.html"
        )
    page = _render(timelines, title, command)
    write_whole(target, page)
    return target


def format_idle_shares(shares: IdleShares) -> str:
    """A table for the terminal: a line per process, in seconds; kinds that never occurred are left out.

    Example:
        >>> from infopro.engines.timeline import Span
        >>> first = StageTimeline(0, 0, (Span("forward", 0, 4 * 10**9), Span("forward", 6 * 10**9, 10**10)))
        >>> last = StageTimeline(1, 0, (Span("receive", 0, 4 * 10**9), Span("forward", 4 * 10**9, 10**10)))
        >>> print(format_idle_shares(idle_shares([first, last])))
        Once the pipeline was full (after 4.00 s), 16.7 % of the stages' time was waiting (bubble share).
        seconds  bubble  compute  other  total
        stage 1  33.3 %     4.00   2.00   6.00
        stage 2   0.0 %     6.00   0.00   6.00
        all      16.7 %    10.00   2.00  12.00
    """
    lines = [("seconds", *_headings(shares)), *_cells(shares)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    table = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    ]
    return "\n".join([_sentence(shares), *table, *_losses(shares)])


def timeline_parts(timelines: Sequence[StageTimeline]) -> TimelineParts:
    """Sentences, table and charts of a timeline.

    Raises:
        BadRun: the last stage has recorded neither features nor work.
        MissingPackage: altair is not installed.
    """
    shares = idle_shares(timelines)
    waiting, times = _figures(timelines, shares)
    return TimelineParts(
        sentence=_sentence(shares),
        notes=(*_pace(shares), *_losses(shares)),
        num_stages=len({stage.stage for stage in shares.stages}),
        headings=_headings(shares),
        rows=tuple(_cells(shares)),
        waiting=tuple(waiting),
        times=tuple(times),
    )


def _render(timelines: Sequence[StageTimeline], title: str, command: str) -> str:
    parts = timeline_parts(timelines)
    record = {"title": title, "command": command}
    drawn = [*parts.waiting, *parts.times]
    return rendered("timeline.html.j2", drawn, record, title=title, command=command, pipeline=parts)


def _figures(timelines: Sequence[StageTimeline], shares: IdleShares) -> tuple[list[Figure], list[Figure]]:
    bars = [shares_figure(shares)] if any(stage.seconds for stage in shares.stages) else []
    return bars, [timeline_figure(timelines, part="filling"), timeline_figure(timelines, part="middle")]


def _sentence(shares: IdleShares) -> str:
    if len(shares.stages) == 1:
        return "One process alone waits for no other: its bubble share is 0."
    if all(stage.stage == 0 for stage in shares.stages):
        return f"{percent(shares.share)} of the processes' time was waiting for each other (bubble share)."
    return (
        f"Once the pipeline was full (after {shares.filling_seconds:.2f} s), {percent(shares.share)} of the "
        "stages' time was waiting (bubble share)."
    )


def _pace(shares: IdleShares) -> list[str]:
    """Which stage the others wait for, where there is one."""
    busy = sorted((stage for stage in shares.stages if stage.seconds), key=lambda stage: stage.share)
    if len(busy) < 2 or percent(busy[0].share) == percent(busy[-1].share):
        return []
    first = busy[0]
    return [f"{first.name.capitalize()} waits least ({percent(first.share)}): it sets the pace of all."]


def _losses(shares: IdleShares) -> list[str]:
    lost = sum(stage.dropped for stage in shares.stages)
    return [f"{lost:,} spans were not kept, for lack of room; their time is left out."] if lost else []


def _occurring(shares: IdleShares) -> dict[str, str]:
    return {
        part: field for part, field in PARTS.items() if any(getattr(stage, field) for stage in shares.stages)
    }


def _headings(shares: IdleShares) -> tuple[str, ...]:
    return ("bubble", *_occurring(shares), "total")


def _cells(shares: IdleShares) -> list[tuple[str, ...]]:
    fields = [*_occurring(shares).values(), "seconds"]
    longest = max(stage.seconds for stage in shares.stages)
    digits = 1 if longest >= 1000 else 2 if longest >= 1 else 3
    lines = [
        (stage.name, stage.share, [getattr(stage, field) for field in fields]) for stage in shares.stages
    ]
    if len(lines) > 1:
        lines.append(
            ("all", shares.share, [sum(column) for column in zip(*(n for *_, n in lines), strict=True)])
        )
    return [(name, percent(share), *(f"{n:,.{digits}f}" for n in numbers)) for name, share, numbers in lines]
