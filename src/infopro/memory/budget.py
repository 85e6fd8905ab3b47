"""Answers a memory budget: the smallest K that fits, or the largest batch, or why nothing does."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from infopro.errors import BadConfiguration, BadSplit, InfoProError
from infopro.memory.planner import Planner
from infopro.splitting.program import batch_size_of

if TYPE_CHECKING:
    from infopro.memory.plan import PlanRow

__all__ = [
    "Answer",
    "DoesNotFit",
    "answer_for",
    "format_bytes",
    "largest_batch",
    "parse_bytes",
    "smallest_k",
    "smallest_num_modules",
]

_UNITS = {"": 1, "B": 1, **{f"{p}iB": 1024**e for e, p in enumerate("KMGT", 1)}}
_UNITS |= {f"{p}B": 1000**e for e, p in enumerate("KMGT", 1)}
_MOST_MODULES = 16  # tried for a budget: beyond, the first block decides the peak
_MOST_IMAGES = 1 << 20


class DoesNotFit(InfoProError):
    """A memory budget that no split can keep; the message says what the smallest step needs, and of what."""


@dataclass(frozen=True)
class Answer:
    """What a budget allows."""

    budget: int  # bytes
    num_modules: int | None  # the smallest K that fits, 1 for end to end; None: nothing fits
    peak: int  # of that K; of the smallest step where nothing fits
    reason: str  # one sentence


def parse_bytes(size: str | int) -> int:
    """Bytes of a size such as "8GiB", "500 MB" or 4096.

    Raises:
        BadConfiguration: no number, an unknown unit, or nothing left.

    Example:
        >>> parse_bytes("1.5GiB"), parse_bytes("2MB")
        (1610612736, 2000000)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(size))
    units = {unit.lower(): factor for unit, factor in _UNITS.items()}
    if found is None or found[2].lower() not in units or float(found[1]) <= 0:
        raise BadConfiguration(
            "a memory size cannot be read", got=repr(size), allowed="such as 8GiB or 500MB"
        )
    return int(float(found[1]) * units[found[2].lower()])


def format_bytes(size: float) -> str:
    """Bytes for readers: three digits and a binary unit.

    Example:
        >>> format_bytes(3 * 1024**3), format_bytes(1536)
        ('3.00 GiB', '1.50 KiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1000 or unit == "GiB":
            break
        size /= 1024
    if unit == "B":
        return f"{size:.0f} B"
    return f"{size:.{max(0, 2 - (abs(size) >= 10) - (abs(size) >= 100))}f} {unit}"


def answer_for(planner: Planner, budget: int, batch_size: int, rows: Sequence[PlanRow]) -> Answer:
    """The smallest K whose predicted peak keeps the budget; what `rows` hold already is not run again."""
    known = {row.num_modules: row.step.peak for row in rows if row.num_modules > 1}
    known[1] = rows[0].step.peak

    def peak(k: int) -> int:
        if k not in known:
            known[k] = planner.local(k, batch_size)[1].peak
        return known[k]

    return smallest_k(planner, budget, batch_size, peak)


def smallest_k(
    planner: Planner, budget: int, batch_size: int, peak: Callable[[int], int] | None = None
) -> Answer:
    """Try K = 1, 2, 3 ... and skip those that cannot fit whatever else the step does."""
    peak = peak or (lambda k: planner.local(k, batch_size)[1].peak)
    if planner.fixed_bytes > budget:
        return Answer(budget, None, planner.fixed_bytes, _parameters_alone(planner, budget))
    best = (0, 0)
    for k in range(1, min(_MOST_MODULES, planner.chooser.most_modules) + 1):
        if planner.least(k, batch_size) > budget:
            continue
        found = peak(k)
        if found <= budget:
            name = "end to end" if k == 1 else f"K = {k}"
            return Answer(budget, k, found, f"{name} is the smallest that fits: {format_bytes(found)}")
        best = min(best, (found, k)) if best[1] else (found, k)
    found, k = best if best[1] else _smallest_step(planner, batch_size, peak)
    fixed = format_bytes(planner.fixed_bytes)
    reason = (
        f"nothing fits into {format_bytes(budget)} at batch size {batch_size}: the smallest step, K = {k}, "
        f"needs {format_bytes(found)}, {fixed} of it for parameters and optimizer state; take a smaller "
        "batch or input, or checkpoint inside the modules"
    )
    return Answer(budget, None, found, reason)


def smallest_num_modules(model: nn.Module, inputs: tuple[Any, ...], *, budget: int, **choice: Any) -> int:
    """The smallest K whose step of this batch is predicted to keep a budget, SGD's momentum counted.

    Args:
        choice: objective, task, balance, granularity, as `Planner` takes them.

    Raises:
        DoesNotFit: none does.
    """
    answer = smallest_k(Planner(model, inputs, **choice), budget, batch_size_of(inputs))
    if answer.num_modules is None:
        raise DoesNotFit(answer.reason)
    return answer.num_modules


def largest_batch(planner: Planner, num_modules: int, budget: int) -> int:
    """The largest batch whose predicted peak keeps the budget.

    Raises:
        DoesNotFit: not even one with two images.
    """

    def fits(size: int) -> bool:
        return planner.local(num_modules, size)[1].peak <= budget

    if planner.fixed_bytes > budget:
        raise DoesNotFit(_parameters_alone(planner, budget))
    if not fits(2):
        found = planner.local(num_modules, 2)[1].peak
        raise DoesNotFit(
            f"K = {num_modules} does not fit into {format_bytes(budget)}",
            got=f"{format_bytes(found)} at batch size 2",
            remedy="raise the budget, or K",
        )
    low, high = 2, 4
    while high < _MOST_IMAGES and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _smallest_step(planner: Planner, batch_size: int, peak: Callable[[int], int]) -> tuple[int, int]:
    """The K that comes closest, where none was worth a try."""
    bounds = []
    for k in range(1, min(_MOST_MODULES, planner.chooser.most_modules) + 1):
        try:
            bounds.append((planner.least(k, batch_size), k))
        except BadSplit:
            break
    k = min(bounds)[1]
    return peak(k), k


def _parameters_alone(planner: Planner, budget: int) -> str:
    return (
        f"the parameters and the optimizer state alone need {format_bytes(planner.fixed_bytes)}, "
        f"the budget is {format_bytes(budget)}; local learning reduces activations only: take a smaller "
        "network or a leaner optimizer"
    )
