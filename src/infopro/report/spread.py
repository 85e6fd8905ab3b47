"""Several runs -> mean, standard deviation, confidence interval and paired difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Spread", "paired", "spread", "t_quantile"]


@dataclass(frozen=True)
class Spread:
    """Some measurements of one quantity, in its own unit."""

    mean: float
    deviation: float | None  # with n - 1; None for a single measurement
    count: int

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % confidence interval of the mean, by Student's t; None for one measurement."""
        if self.deviation is None:
            return None
        return t_quantile(self.count - 1) * self.deviation / math.sqrt(self.count)


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and standard deviation (n - 1); None of nothing.

    One value that is not a number makes the mean not a number: it is no value that may be left out.

    Example:
        >>> spread([8.0, 9.0, 10.0])
        Spread(mean=9.0, deviation=1.0, count=3)
    """
    if not values:
        return None
    if not all(map(math.isfinite, values)):
        return Spread(math.nan, None, len(values))
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Spread(mean, None, 1)
    squares = math.fsum((value - mean) ** 2 for value in values)  # a tenth of the time of statistics.stdev
    return Spread(mean, math.sqrt(squares / (len(values) - 1)), len(values))


def paired(values: Mapping[int, float], others: Mapping[int, float]) -> Spread | None:
    """The difference values - others over the seeds that both have: what the seeds share cancels.

    Example:
        >>> paired({0: 12.0, 1: 15.0}, {0: 10.0, 1: 12.0, 2: 11.0})
        Spread(mean=2.5, deviation=0.7071067811865476, count=2)
    """
    return spread([value - others[seed] for seed, value in values.items() if seed in others])


def t_quantile(freedom: int) -> float:
    """The t that |T| stays below with probability 0.95, by bisection of Student's distribution.

    Example:
        >>> round(t_quantile(2), 3)
        4.303
    """
    low, high = 0.0, 16.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 0.95 else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """P(|T| < t) for a whole number of degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for index in range(2 + odd, freedom + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (index - 1) / index
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
