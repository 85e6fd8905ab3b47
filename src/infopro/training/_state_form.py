"""The form that the content of a checkpoint's `state.json` must have, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["misshapen"]


def misshapen(record: Mapping[str, Any]) -> str | None:
    """The first field of another form than `write_state` gives it.

    Example:
        >>> misshapen({"epoch": -1})
        'epoch'
    """
    return next((name for name, holds in _FORMS.items() if not holds(record.get(name))), None)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _files(value: Any) -> bool:
    return isinstance(value, dict) and all(_file(name, entry) for name, entry in value.items())


def _file(name: str, entry: Any) -> bool:
    """Of this folder: a name that leads out of it would have another file opened."""
    inside = name not in ("", ".", "..") and not set(name) & set("/\\\0")
    sound = isinstance(entry, dict) and _names(entry.get("tensors")) and _count(entry.get("steps", 0))
    return inside and sound and all(isinstance(entry.get(key), str) for key in ("kind", "sha256"))


def _optimizer(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("groups"), list):
        return False
    values = value.get("values")
    return (
        isinstance(values, dict)
        and all(isinstance(entry, dict) for entry in values.values())
        and all(
            isinstance(group, dict)
            and isinstance(group.get("hyperparameters"), dict)
            and _names(group.get("parameters"))
            for group in value["groups"]
        )
    )


_FORMS: dict[str, Callable[[Any], bool]] = {
    "epoch": _count,
    "step": _count,
    "best_test_error": _number,
    "configuration": _object,
    "totals": _object,
    "files": _files,
    "optimizer": _optimizer,
}
