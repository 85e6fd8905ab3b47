import itertools
import math
import random

import pytest

from infopro.memory.partition import best_partition


def segments(weights, cuts):
    edges = [0, *(cut + 1 for cut in cuts), len(weights)]
    return [sum(weights[i:j]) for i, j in itertools.pairwise(edges)]


def additive(weights):
    return lambda start, end: sum(weights[start + 1 : end + 1])


@pytest.mark.parametrize("seed", range(20))
def test_no_partition_is_better(seed):
    """Against all partitions by brute force: first the maximum, then the sum of squares."""
    draw = random.Random(seed)
    weights = [draw.randint(0, 9) for _ in range(draw.randint(3, 9))]
    num_modules = draw.randint(1, min(4, len(weights)))
    found = best_partition(additive(weights), num_points=len(weights) - 1, num_modules=num_modules)

    def quality(cuts):
        parts = segments(weights, cuts)
        return max(parts), sum(part * part for part in parts)

    every = itertools.combinations(range(len(weights) - 1), num_modules - 1)
    assert quality(found) == min(map(quality, every))
    assert len(found) == num_modules - 1 and found == sorted(set(found))


def test_forbidden_segments_are_not_used():
    weights = [1, 1, 1, 1]

    def cost(start, end):
        return math.inf if end - start == 2 else additive(weights)(start, end)

    assert segments(weights, best_partition(cost, num_points=3, num_modules=2)) in ([1, 3], [3, 1])
    with pytest.raises(ValueError, match="no partition into 2 modules"):
        best_partition(lambda i, j: math.inf, num_points=3, num_modules=2)


def test_costs_need_not_add_up():
    """Storages that two segments share count in both: the cost of a union is less than the sum."""
    sets = [{1, 2}, {2, 3}, {3, 4}, {4, 5}]

    def cost(start, end):
        return len(set().union(*sets[start + 1 : end + 1]))

    assert best_partition(cost, num_points=3, num_modules=2) == [1]
