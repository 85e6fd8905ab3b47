"""One weight per local module, from what a user writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from infopro.errors import BadConfiguration

__all__ = ["Weight", "interpolate", "module_weight", "plain_weight"]

Weight = float | tuple[float, ...]


def interpolate(first: float, last: float, *, index: int, num_local: int) -> float:
    """The value of local module `index` of `num_local` = K - 1, linear from the first to the last.

    InfoPro's published schedule: ratio = index / (K - 2), and 0 for K = 2, where only `first` matters.

    Example:
        >>> [interpolate(6.0, 1.0, index=i, num_local=3) for i in range(3)]
        [6.0, 3.5, 1.0]
    """
    ratio = index / (num_local - 1) if num_local > 1 else 0.0
    return first * (1 - ratio) + last * ratio


def module_weight(name: str, weight: Weight, *, index: int, num_local: int) -> float:
    """A number serves every module, a pair is (first, last), K - 1 numbers are one each.

    Raises:
        BadConfiguration: another count of numbers.
    """
    if isinstance(weight, float):
        return weight
    if len(weight) == 2:
        return interpolate(weight[0], weight[1], index=index, num_local=num_local)
    if len(weight) != num_local:
        raise BadConfiguration(
            f"{name} does not fit the split",
            got=f"{len(weight)} values for {num_local} local modules (K - 1)",
            allowed=f"one number, a pair (first, last), or {num_local} numbers",
        )
    return weight[index]


def plain_weight(name: str, value: Any) -> Weight:
    """The number or numbers as float or tuple of floats.

    Raises:
        BadConfiguration: not numbers, none at all, negative or not finite.
    """
    numbers = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    sound = bool(numbers) and all(isinstance(n, int | float) and math.isfinite(n) and n >= 0 for n in numbers)
    if not sound:
        raise BadConfiguration(
            f"{name} is not a weight",
            got=repr(value),
            allowed="finite numbers of 0 or more: one, a pair (first, last), or one per local module",
        )
    return float(value) if numbers == (value,) else tuple(float(n) for n in numbers)
