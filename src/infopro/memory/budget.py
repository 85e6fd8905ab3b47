"""Answers a memory budget: the cheapest step that fits, or the largest batch, or why nothing does."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from infopro.errors import BadConfiguration, InfoProError
from infopro.memory.planner import Planner
from infopro.memory.recomputing import fewest, order
from infopro.splitting import Checkpoint
from infopro.splitting.program import batch_size_of

if TYPE_CHECKING:
    from infopro.memory.plan import PlanRow

__all__ = [
    "Answer",
    "DoesNotFit",
    "answer_for",
    "choose_for_budget",
    "format_bytes",
    "largest_batch",
    "parse_bytes",
]

_UNITS = {"": 1, "B": 1, **{f"{p}iB": 1024**e for e, p in enumerate("KMGT", 1)}}
_UNITS |= {f"{p}B": 1000**e for e, p in enumerate("KMGT", 1)}
_MOST_MODULES = 16  # tried for a budget: beyond, the first block decides the peak
_MOST_IMAGES = 1 << 20
_FARTHEST = 64  # times a size that fits: small peaks say little about large ones
_TRIED = 2, 3, 4, 8, 16  # K with checkpoints: more heads cost more than more blocks a second time
_PARTS = 4  # of a batch that is accumulated


class DoesNotFit(InfoProError):
    """A memory budget that no split can keep; the message says what the smallest step needs, and of what."""


@dataclass(frozen=True)
class Answer:
    """What a budget allows."""

    budget: int  # bytes
    num_modules: int | None  # K of what fits, 1 for end to end; None: nothing fits
    peak: int  # of that step; of the smallest one where nothing fits
    reason: str  # one sentence: what was chosen and why, and what would fit, too
    checkpoint: Checkpoint = "none"  # what must run again: the names of some blocks, or "everything"


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


def answer_for(planner: Planner, budget: int, batch_size: int, rows: Sequence[PlanRow] = ()) -> Answer:
    """The first step of these that keeps the budget; what `rows` hold already is not run again.

    End to end; the smallest K; the smallest K with as few checkpointed blocks as possible; the smallest K
    with all blocks, heads and losses checkpointed.
    """
    known = {(row.num_modules, row.checkpoint): row.step.peak for row in rows if row.cuts or row is rows[0]}

    def peak(num_modules: int, checkpoint: Checkpoint = "none") -> int:
        key = (num_modules, str(checkpoint))
        if key not in known:
            known[key] = planner.local(num_modules, batch_size, checkpoint)[1].peak
        return known[key]

    if planner.fixed_bytes > budget:
        return Answer(budget, None, planner.fixed_bytes, _parameters_alone(planner, budget))
    for k in range(1, min(_MOST_MODULES, planner.chooser.most_modules) + 1):
        # those that cannot fit whatever else the step does are skipped
        if planner.least(k, batch_size) <= budget and peak(k) <= budget:
            name = "end to end" if k == 1 else f"K = {k}"
            exact = _exact(planner, budget, batch_size) if k > 1 else ""
            reason = f"{name} is the smallest that fits: {format_bytes(peak(k))}{exact}"
            return Answer(budget, k, peak(k), reason)
    return _recomputing(planner, budget, batch_size, peak)


def _recomputing(planner: Planner, budget: int, batch_size: int, peak: Callable[..., int]) -> Answer:
    """The answer where nothing fits without a second run."""
    exact = _exact(planner, budget, batch_size)
    live = planner.split(1).live
    tried = [k for k in _TRIED if k <= planner.chooser.most_modules] or [1]
    hopeless = live or planner.least_recomputed(batch_size) > budget
    steps = [] if hopeless else [(k, how) for how in ("blocks", "everything") for k in tried]
    k, how = next(((k, how) for k, how in steps if peak(k, how) <= budget), (0, "none"))
    if not k:
        how = "none" if live else "everything"
        least, k = min((peak(k, how), k) for k in (tried[-1:] if hopeless else tried))
        reason = (
            f"nothing fits into {format_bytes(budget)} at batch size {batch_size}: K = {k}"
            f"{'' if live else ' with everything checkpointed'} needs {format_bytes(least)}, "
            f"{format_bytes(planner.fixed_bytes)} of it for parameters and optimizer state; take a smaller "
            f"batch or input{exact}"
        )
        return Answer(budget, None, least, reason)
    chosen: Checkpoint = "everything"
    text = "all blocks, heads and losses"
    if how == "blocks":
        blocks = order(planner, batch_size, k)
        chosen = fewest(planner, blocks, lambda some: peak(k, some) <= budget)
        text = f"{len(chosen)} of {len(blocks)} blocks ({', '.join(chosen)})"
    found = peak(k, chosen)
    reason = f"nothing fits without recomputation; K = {k} does where {text} run again in the backward pass"
    return Answer(budget, k, found, f"{reason}: {format_bytes(found)}{exact}", chosen)


def _exact(planner: Planner, budget: int, batch_size: int) -> str:
    """What keeps the budget without local losses."""
    steps = {f"accumulating {_PARTS} parts (BatchNorm apart)": planner.accumulated(batch_size, _PARTS).peak}
    if not planner.split(1).live:
        steps = {"end to end with checkpoints per block": planner.checkpointed(batch_size).peak, **steps}
    fitting = [f"{name} ({format_bytes(peak)})" for name, peak in steps.items() if peak <= budget]
    return f"; the exact gradient fits, too: {', '.join(fitting)}" if fitting else ""


def choose_for_budget(model: nn.Module, inputs: tuple[Any, ...], *, budget: int, **choice: Any) -> Answer:
    """What is predicted to keep a budget with this batch, SGD's momentum counted; see `answer_for`.

    Args:
        choice: objective, task, balance, granularity, as `Planner` takes them.

    Raises:
        DoesNotFit: nothing does.
    """
    answer = answer_for(Planner(model, inputs, **choice), budget, batch_size_of(inputs))
    if answer.num_modules is None:
        raise DoesNotFit(answer.reason)
    return answer


def largest_batch(planner: Planner, num_modules: int, budget: int) -> int:
    """The largest batch whose predicted peak keeps the budget.

    Raises:
        DoesNotFit: not even one with two images.
    """

    def peak(size: int) -> int:
        return planner.local(num_modules, size)[1].peak

    if planner.fixed_bytes > budget:
        raise DoesNotFit(_parameters_alone(planner, budget))
    least = peak(2)
    if least > budget:
        raise DoesNotFit(
            f"K = {num_modules} does not fit into {format_bytes(budget)}",
            got=f"{format_bytes(least)} at batch size 2",
            remedy="raise the budget, or K",
        )
    return _last_within(peak, budget, low=2, at_low=least)


def _last_within(peak: Callable[[int], int], budget: int, *, low: int, at_low: int) -> int:
    """The largest size that keeps the budget, of those from `low` on, which does; `peak` grows with the size.

    A peak is nearly a line, which says where to look: four or five sizes are tried where halving takes a
    dozen. Where it is none, every other size is the middle.
    """
    high, at_high = 2 * low, peak(2 * low)
    least = 0  # a line that was wrong once is not believed in small steps
    while at_high <= budget and high < _MOST_IMAGES:
        slope = max(1.0, (at_high - at_low) / (high - low))
        guess = max(high + int((budget - at_high) / slope) + 1, least)
        low, at_low, high = high, at_high, min(guess, _FARTHEST * high, _MOST_IMAGES)
        at_high = peak(high)
        least = 2 * high if high == guess else 0
    if at_high <= budget:
        return high
    halve = False
    while high - low > 1:
        middle = (low + high) // 2
        if not halve:
            middle = low + int((budget - at_low) * (high - low) / (at_high - at_low))
            middle = min(max(middle, low + 1), high - 1)
        found, before = peak(middle), high - low
        low, at_low, high, at_high = (
            (middle, found, high, at_high) if found <= budget else (low, at_low, middle, found)
        )
        halve = not halve and high - low > before // 2
    return low


def _parameters_alone(planner: Planner, budget: int) -> str:
    return (
        f"the parameters and the optimizer state alone need {format_bytes(planner.fixed_bytes)}, "
        f"the budget is {format_bytes(budget)}; local learning reduces activations only: take a smaller "
        "network or a leaner optimizer"
    )
