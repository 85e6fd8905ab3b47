"""Dataclasses as the plain values that JSON holds, and back, field by field and type by type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

__all__ = ["from_plain", "to_plain"]

T = TypeVar("T")

_INFINITE = {"inf": math.inf, "-inf": -math.inf}


def to_plain(value: Any) -> Any:
    """What JSON can hold without loss: null stands for nan, "inf" and "-inf" for the infinite numbers.

    Example:
        >>> to_plain((1.5, float("nan"), float("-inf")))
        [1.5, None, '-inf']
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: to_plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): to_plain(entry) for name, entry in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def from_plain(kind: type[T], plain: Any) -> T:
    """The value of this type; a dataclass without a field that has a default gets the default.

    Raises:
        ValueError: another type, a field that is missing or unknown; the message says where.

    Example:
        >>> from_plain(tuple[float, ...], [1, None])
        (1.0, nan)
    """
    read: T = _read(kind, plain, "it")
    return read


def _read(kind: Any, plain: Any, where: str) -> Any:
    if is_dataclass(kind):
        return _read_fields(kind, plain, where)
    if get_origin(kind) is tuple:
        entries = _of_type(list, plain, where)
        return tuple(_read(get_args(kind)[0], entry, f"{where}[{i}]") for i, entry in enumerate(entries))
    if get_origin(kind) is Mapping:
        entries = _of_type(dict, plain, where)
        return {name: _read(get_args(kind)[1], e, f"{where}[{name!r}]") for name, e in entries.items()}
    if kind is float:
        return _read_float(plain, where)
    return plain if kind is object else _of_type(kind, plain, where)


def _read_fields(kind: Any, plain: Any, where: str) -> Any:
    values, hints = _of_type(dict, plain, where), get_type_hints(kind)
    known = {each.name: each for each in fields(kind)}
    required = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    if values.keys() - known.keys() or required - values.keys():
        wrong = sorted(values.keys() - known.keys() or required - values.keys())
        raise ValueError(f"{where} has {'no' if required - values.keys() else 'an unknown'} {wrong[0]!r}")
    return kind(**{name: _read(hints[name], entry, f"{where}.{name}") for name, entry in values.items()})


def _read_float(plain: Any, where: str) -> float:
    if plain is None:
        return math.nan
    if isinstance(plain, str) and plain in _INFINITE:
        return _INFINITE[plain]
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        raise ValueError(f"{where} is {plain!r} and no number")
    return float(plain)


def _of_type(kind: Any, plain: Any, where: str) -> Any:
    if not isinstance(plain, kind) or (kind is int and isinstance(plain, bool)):
        raise ValueError(f"{where} is {plain!r:.40} and no {kind.__name__}")
    return plain
