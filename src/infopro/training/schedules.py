"""Learning rates as pure functions of the position in training: nothing to store, nothing to resume."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from infopro.errors import BadConfiguration, UnknownName

__all__ = ["SCHEDULES", "Schedule", "constant", "cosine", "make_schedule", "paper", "poly", "scaled"]

# (epoch, 1-based; share of that epoch already done, 0 to 1) -> learning rate
Schedule = Callable[[int, float], float]

_PAPER_WARMUP_START = 0.01  # the published code's absolute starting rate
_POLY_POWER, _POLY_LEAST = 0.9, 1e-4


def paper(epoch: int, done: float, *, base: float, epochs: int, warmup_epochs: float) -> float:
    """InfoPro's schedule: one rate an epoch, half a cosine, the first epochs mixed with a rate of 0.01.

    `lr(e) = c(e)·(e-1)/W + 0.01·(W+1-e)/W` for e <= W, `c(e) = base/2·(1 + cos(π·e/epochs))` afterwards,
    e = 1..epochs and W = 10: so the last epoch's rate is 0, as published.

    Example:
        >>> [round(paper(e, 0.0, base=0.8, epochs=160, warmup_epochs=10), 4) for e in (1, 2, 11, 160)]
        [0.01, 0.089, 0.7907, 0.0]
    """
    rate = 0.5 * base * (1 + math.cos(math.pi * epoch / epochs))
    if epoch <= warmup_epochs:
        rate = (
            rate * (epoch - 1) / warmup_epochs
            + _PAPER_WARMUP_START * (warmup_epochs + 1 - epoch) / warmup_epochs
        )
    return rate


def cosine(epoch: int, done: float, *, base: float, epochs: int, warmup_epochs: float) -> float:
    """Linear warm-up from 0, then half a cosine to 0, changing with every step: for short runs.

    Example:
        >>> [round(cosine(e, 0.0, base=0.4, epochs=2, warmup_epochs=0), 3) for e in (1, 2)]
        [0.4, 0.2]
    """
    position = epoch - 1 + done
    if position < warmup_epochs:
        return base * position / warmup_epochs
    progress = (position - warmup_epochs) / max(epochs - warmup_epochs, 1e-9)
    return 0.5 * base * (1 + math.cos(math.pi * min(progress, 1.0)))


def poly(epoch: int, done: float, *, base: float, epochs: int, warmup_epochs: float) -> float:
    """Falls as (1 - progress)^0.9 to 0.0001, changing with every step: what segmentation is trained with.

    `lr = (base - least)·(1 - progress)^0.9 + least`, as InfoPro's published settings for Cityscapes have it;
    a linear warm-up from 0 may come before.

    Example:
        >>> [round(poly(e, 0.0, base=0.01, epochs=2, warmup_epochs=0), 5) for e in (1, 2, 3)]
        [0.01, 0.00541, 0.0001]
    """
    position = epoch - 1 + done
    if position < warmup_epochs:
        return base * position / warmup_epochs
    progress = (position - warmup_epochs) / max(epochs - warmup_epochs, 1e-9)
    least = min(base, _POLY_LEAST)
    return (base - least) * float((1 - min(progress, 1.0)) ** _POLY_POWER) + least


def constant(epoch: int, done: float, *, base: float, epochs: int, warmup_epochs: float) -> float:
    """Linear warm-up from 0, then `base`."""
    position = epoch - 1 + done
    return base * min(1.0, position / warmup_epochs) if warmup_epochs else base


SCHEDULES: dict[str, Callable[..., float]] = {
    "paper": paper,
    "cosine": cosine,
    "poly": poly,
    "constant": constant,
}


def make_schedule(name: str, *, base: float, epochs: int, warmup_epochs: float) -> Schedule:
    """The schedule called `name`, with its numbers filled in."""
    if name not in SCHEDULES:
        raise UnknownName("schedule", name, SCHEDULES)
    if warmup_epochs < 0:
        raise BadConfiguration("warmup_epochs is negative", got=warmup_epochs, allowed="0 or more")
    return partial(SCHEDULES[name], base=base, epochs=epochs, warmup_epochs=warmup_epochs)


def scaled(schedule: Schedule, factor: float) -> Schedule:
    """A schedule whose rates are those of another times a factor."""
    return lambda epoch, done: factor * schedule(epoch, done)
