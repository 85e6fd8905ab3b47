"""Numbers as text, with their units; a number that is missing or not finite says so."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = [
    "ABSENT",
    "count",
    "mebibytes",
    "nats",
    "operations",
    "percent",
    "points",
    "ratio",
    "seconds",
    "shape",
    "with_deviation",
]

ABSENT = "–"
MEBIBYTE = 2**20


def _finite(value: float | None, text: str) -> str:
    if value is None:
        return ABSENT
    return text.format(value) if math.isfinite(value) else "not a number"


def percent(value: float | None) -> str:
    """A percentage with two decimals: one test image in ten thousand stays visible."""
    return _finite(value, "{:.2f} %")


def with_deviation(mean: float, deviation: float | None, unit: str) -> str:
    """A mean with its standard deviation, where there is one."""
    spread = "" if deviation is None else f" ± {deviation:.2f}"
    return _finite(mean, f"{{:.2f}}{spread} {unit}")


def points(mean: float, deviation: float | None) -> str:
    """A difference of two percentages, with its sign."""
    return f"{mean:+.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")


def operations(number: int) -> str:
    """Floating-point operations, a multiplication and an addition counted as two."""
    return f"{number / 1e9:#.3g} GFLOP" if number >= 1e9 else f"{number / 1e6:#.3g} MFLOP"


def mebibytes(num_bytes: float) -> str:
    """Bytes as MiB (2**20 bytes), with three significant digits below 100."""
    value = num_bytes / MEBIBYTE
    return f"{value:,.0f} MiB" if value >= 99.95 else f"{value:#.3g} MiB"


def ratio(value: float | None) -> str:
    """A multiple of the end-to-end value."""
    return _finite(value, "{:.2f} ×")


def nats(value: float | None) -> str:
    """A cross-entropy per pixel."""
    return _finite(value, "{:.3f}")


def seconds(value: float) -> str:
    """A duration in the unit that a person would use."""
    if not math.isfinite(value):
        return "not a number"
    if value < 120:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def count(value: int) -> str:
    """A whole number with thousands separated."""
    return f"{value:,}"


def shape(sizes: Sequence[int]) -> str:
    """A tensor's shape without the batch dimension."""
    return " × ".join(str(size) for size in sizes)
