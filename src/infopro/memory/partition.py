"""The exact partition of a chain: consecutive segments whose largest cost is as small as possible."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["best_partition"]


def best_partition(cost: Callable[[int, int], float], *, num_points: int, num_modules: int) -> list[int]:
    """Choose the points behind which to cut, so that the costliest module is as cheap as possible.

    Of the partitions with the smallest maximum, the one with the smallest sum of squares: the modules
    beside the
    largest are even, too. A dynamic programme over all segments: the result is exact.

    Args:
        cost: of the segment behind point i up to point j; -1 is the start, `num_points` the end;
            infinite where
            a segment is not allowed.
        num_points: where a cut may lie.
        num_modules: K.

    Returns:
        K - 1 points in order.

    Raises:
        ValueError: no allowed partition.

    Example:
        >>> weights = [5, 1, 1, 1, 4]  # of five blocks, with points behind the first four
        >>> best_partition(lambda i, j: sum(weights[i + 1 : j + 1]), num_points=4, num_modules=3)
        [0, 3]
    """
    table = [
        [cost(start, end) if end > start else math.inf for end in range(num_points + 1)]
        for start in range(-1, num_points)
    ]
    limit = _best(table, num_modules, lambda best, cost: max(best, cost), math.inf)[0]
    if limit == math.inf:
        raise ValueError(f"no partition into {num_modules} modules is allowed")
    return _best(table, num_modules, lambda best, cost: best + cost * cost, limit)[1]


def _best(
    table: list[list[float]], num_modules: int, add: Callable[[float, float], float], limit: float
) -> tuple[float, list[int]]:
    """The smallest total over all partitions whose segments cost at most `limit`, and its cuts."""
    size = len(table)
    best: dict[int, tuple[float, list[int]]] = {-1: (0.0, [])}  # end of the segments so far -> total, cuts
    for module in range(num_modules):
        last = module == num_modules - 1
        found: dict[int, tuple[float, list[int]]] = {}
        for start, (total, cuts) in best.items():
            for end in (size - 1,) if last else range(start + 1, size - 1):
                price = table[start + 1][end]
                if price > limit or price == math.inf:
                    continue
                candidate = add(total, price)
                if end not in found or candidate < found[end][0]:
                    found[end] = (candidate, cuts if last else [*cuts, end])
        best = found
    return best.get(size - 1, (math.inf, []))
