"""Whether a value is of the kind that a field's annotation says."""

from __future__ import annotations

import math
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

__all__ = ["is_of_kind"]

_LARGEST = 2**63  # whole numbers beyond it do not survive every reader of JSON


def is_of_kind(value: Any, kind: Any) -> bool:
    """Whole numbers count as fractions, truth values as neither; fractions are finite, rows not empty.

    Example:
        >>> is_of_kind((6.0, 1), tuple[float, ...] | None), is_of_kind("6", int), is_of_kind(True, int)
        (True, False, False)
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(is_of_kind(value, part) for part in parts)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin is tuple:
        return isinstance(value, tuple) and _are_of_kinds(value, parts)
    if kind in (None, NoneType):
        return value is None
    if kind in (int, float):
        return _is_number(value, int if kind is int else (int, float))
    return isinstance(value, kind)


def _are_of_kinds(values: tuple[Any, ...], kinds: tuple[Any, ...]) -> bool:
    if kinds[1:] == (Ellipsis,):
        return all(is_of_kind(value, kinds[0]) for value in values) and (bool(values) or kinds[0] is str)
    return len(values) == len(kinds) and all(map(is_of_kind, values, kinds))


def _is_number(value: Any, kinds: Any) -> bool:
    if not isinstance(value, kinds) or isinstance(value, bool):
        return False
    return abs(value) < _LARGEST if isinstance(value, int) else math.isfinite(value)
