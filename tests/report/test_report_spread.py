"""Means, deviations, intervals and paired differences, against hand-computed values and scipy."""

from __future__ import annotations

import math

import pytest
from scipy.stats import t

from infopro.report.spread import Spread, paired, spread, t_quantile


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 30, 99])
def test_quantiles_are_scipys(freedom: int) -> None:
    assert t_quantile(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=1e-9)


def test_three_values_by_hand() -> None:
    found = spread([8.0, 9.0, 13.0])
    assert found is not None
    assert (found.mean, found.count) == (10.0, 3)
    assert found.deviation == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert found.half_width == pytest.approx(4.302653 * math.sqrt(7) / math.sqrt(3), rel=1e-6)


def test_one_value_has_no_spread_and_none_nothing() -> None:
    assert spread([3.0]) == Spread(3.0, None, 1)
    assert spread([3.0]).half_width is None  # type: ignore[union-attr]
    assert spread([]) is None


def test_a_value_that_is_no_number_is_not_left_out() -> None:
    found = spread([1.0, math.nan, 2.0])
    assert found is not None and math.isnan(found.mean) and found.count == 3


def test_pairs_are_of_common_seeds() -> None:
    assert paired({0: 12.0, 1: 15.0, 7: 99.0}, {0: 10.0, 1: 11.0, 2: 0.0}) == Spread(3.0, math.sqrt(2), 2)
    assert paired({0: 1.0}, {1: 1.0}) is None
