"""The form that a run's `run.json` must have, whoever wrote it, as far as anything reads it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["misrecorded"]


def misrecorded(record: Mapping[str, Any]) -> str | None:
    """The first field of another form than a run gives it; a field that is missing is of an earlier version.

    Example:
        >>> misrecorded({"num_classes": 3, "class_names": ["a", "b"]})
        'class_names'
    """
    wrong = (name for name, holds in _FORMS.items() if name in record and not holds(record[name]))
    return next(wrong, None) or _contradiction(record)


def _contradiction(record: Mapping[str, Any]) -> str | None:
    lengths = {"class_names": record.get("num_classes")}
    channels = record.get("image_shape", [None])[0]
    lengths |= {"mean": channels, "std": channels}
    for name, length in lengths.items():
        if name in record and length is not None and len(record[name]) != length:
            return name
    return None


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _level(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= 255


def _all(holds: Callable[[Any], bool], number: int | None = None) -> Callable[[Any], bool]:
    def hold(value: Any) -> bool:
        return isinstance(value, list) and number in (None, len(value)) and all(map(holds, value))

    return hold


def _object(value: Any) -> bool:
    return isinstance(value, dict)


_FORMS: dict[str, Callable[[Any], bool]] = {
    "name": _text,
    "command": _text,
    "data_dir": lambda value: value is None or _text(value),
    "cuts": _all(_text),
    "image_shape": _all(_count, 3),
    "num_classes": _count,
    "has_masks": lambda value: isinstance(value, bool),
    "class_names": _all(_text),
    "colours": _all(_all(_level, 3)),
    "mean": _all(_number),
    "std": _all(_number),
    "skipped_images": lambda value: isinstance(value, dict) and all(map(_text, value.values())),
    "launch": _object,
    "environment": _object,
}
