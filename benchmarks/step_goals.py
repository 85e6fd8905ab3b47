"""What step.py's rows say: the Pareto front, and whether the goals that were set beforehand are met."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from step_results import Row

__all__ = ["Comparison", "comparisons", "goals"]

MAIN = "local InfoPro softmax, K = 4"
EQUAL = 1.02  # a rival that needs this much more memory still counts as needing the same
LEAD = 0.20  # in time, over checkpointing at equal memory
OVER_HEADS = 0.02  # of time, above end to end and the heads' operations
OVER_BOUND = 0.05  # of saved bytes
LEAST_MEMORY = 0.20  # of end to end's, for local + checkpointing


@dataclass(frozen=True)
class Comparison:
    """All methods of one network under the same conditions."""

    rows: Sequence[Row]

    @cached_property
    def end_to_end(self) -> Row | None:
        return next((r for r in self.rows if r.family == "end to end" and r.peak_bytes), None)

    def memory(self, row: Row) -> float | None:
        """Peak, relative to end to end."""
        return _over(row.peak_bytes, self.end_to_end.peak_bytes if self.end_to_end else None)

    def operations(self, row: Row) -> float | None:
        """Of the whole step, relative to end to end."""
        return _over(row.operations, self.end_to_end.operations if self.end_to_end else None)

    @cached_property
    def points(self) -> list[tuple[Row, float, float]]:
        """(method, memory, time) of those for which both are known."""
        found = [(row, self.memory(row), row.time_ratio) for row in self.rows]
        return [(row, m, t) for row, m, t in found if m is not None and t is not None]

    @cached_property
    def front(self) -> list[tuple[Row, float, float]]:
        """Those that no other method beats in memory without being slower; least memory first."""
        best: list[tuple[Row, float, float]] = []
        for point in sorted(self.points, key=lambda p: (p[1], p[2])):
            if not best or point[2] < best[-1][2]:
                best.append(point)
        return best

    def rival(self, row: Row, family: str) -> Row | None:
        """The fastest method of a family that needs no more memory than a row."""
        least = EQUAL * (row.peak_bytes or 0)
        fits = [r for r, _, _ in self.points if r.family == family and (r.peak_bytes or 0) <= least]
        return min(fits, key=lambda r: r.time_ratio or 0.0, default=None)


def comparisons(rows: Iterable[Row]) -> list[Comparison]:
    """The rows by network and conditions, in the order in which they were found."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        key = (row.kind, row.network, row.device, row.precision, row.batch_size, row.processor)
        groups.setdefault(key, []).append(row)
    return [Comparison(group) for group in groups.values()]


def goals(comparison: Comparison) -> Iterator[tuple[bool | None, str]]:
    """(met, not met or not measured; what was found) of each goal."""
    main = next((r for r, _, _ in comparison.points if r.method == MAIN), None)
    local = [r for r, _, _ in comparison.front if r.family.startswith("local")]
    if main is None:
        yield None, f"{MAIN} was not measured"
    else:
        yield _time(main)
    yield _on_front(comparison)
    yield _ahead(comparison, local, main)
    if main is not None:
        yield _near_bound(main)
    yield _with_checkpointing(comparison)
    for row in dict.fromkeys(r for r in (main, _most_ahead(comparison, local, "accumulation")) if r):
        yield None, f"accumulation at equal memory: {_against(comparison, row, 'accumulation')}"


def _time(row: Row) -> tuple[bool, str]:
    found, share = row.time_ratio or 0.0, row.head_share or 0.0
    allowed = 1.0 + share + OVER_HEADS
    goal = f"goal {allowed:.3f} = 1 + heads' {share:.1%} + {OVER_HEADS:.0%}"
    return found <= allowed, f"{row.method} takes {found:.3f} x end to end; {goal}"


def _on_front(comparison: Comparison) -> tuple[bool, str]:
    names = [row.method for row, _, _ in comparison.front]
    local = [name for name in names if name.startswith("local")]
    return bool(local), f"on the front: {'; '.join(names)} ({len(local)} of {len(names)} are local)"


def _lead(comparison: Comparison, row: Row, family: str) -> float | None:
    """Share of a family's time that a row saves at equal memory."""
    rival = comparison.rival(row, family)
    if rival is None or not rival.time_ratio or row.time_ratio is None:
        return None
    return 1.0 - row.time_ratio / rival.time_ratio


def _most_ahead(comparison: Comparison, rows: Iterable[Row], family: str) -> Row | None:
    leads = [(lead, row) for row in rows if (lead := _lead(comparison, row, family)) is not None]
    return max(leads, key=lambda pair: pair[0], default=(None, None))[1]


def _ahead(comparison: Comparison, rows: Sequence[Row], main: Row | None) -> tuple[bool | None, str]:
    """Of the local methods on the front."""
    best = _most_ahead(comparison, rows, "checkpointing")
    lead = None if best is None else _lead(comparison, best, "checkpointing")
    shown = dict.fromkeys(row for row in (best, main) if row)
    texts = [_against(comparison, row, "checkpointing") for row in shown]
    text = "; ".join(texts) or "no local method on the front has a rival"
    return lead is not None and lead >= LEAD, f"at equal memory, goal {LEAD:.0%}: {text}"


def _against(comparison: Comparison, row: Row, family: str) -> str:
    rival, lead = comparison.rival(row, family), _lead(comparison, row, family)
    own = f"{row.method} ({comparison.memory(row):.0%}, {row.time_ratio:.2f} x)"
    if rival is None or lead is None:
        return f"{own} has no rival: none needs as little memory"
    word = "less" if lead >= 0 else "more"
    other = f"{rival.method} ({comparison.memory(rival):.0%}, {rival.time_ratio:.2f} x)"
    return f"{own} takes {abs(lead):.0%} {word} time than {other}"


def _near_bound(row: Row) -> tuple[bool | None, str]:
    if not row.saved_bytes or not row.saved_bound:
        return None, f"{row.method}: saved bytes were not measured"
    over = row.saved_bytes / row.saved_bound - 1.0
    text = f"{row.method} saves {over:+.1%} against the largest module of the best cuts, as predicted"
    return over <= OVER_BOUND, f"{text}; goal {OVER_BOUND:+.0%}"


def _with_checkpointing(comparison: Comparison) -> tuple[bool | None, str]:
    found = [(m, row, t) for row, m, t in comparison.points if row.family == "local + checkpointing"]
    if not found:
        return None, "local + checkpointing was not measured"
    memory, row, time = min(found, key=lambda f: f[0])
    text = f"{row.method} needs {memory:.0%} of end to end's memory, at {time:.2f} x its time"
    return memory <= LEAST_MEMORY, f"{text}; goal {LEAST_MEMORY:.0%}"


def _over(value: int | None, base: int | None) -> float | None:
    return value / base if value is not None and base else None
