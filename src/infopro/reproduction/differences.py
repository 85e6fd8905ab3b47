"""What is different here from where a run was trained, and what it did not record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["differences", "unrecorded"]

# what decides the bits, by its place in run.json; the last entry names it
_PLACES = (
    (("source_hash",), "infopro's source"),
    (("environment", "source", "commit"), "infopro's commit"),
    (("data_hash",), "data"),
    (("initial_weights", "hash"), "initial weights"),
    (("train_images",), "number of training images"),
    (("test_images",), "number of test images"),
    (("environment", "device"), "processor"),
    (("environment", "cpu_capability"), "vector instructions"),
    (("environment", "threads"), "threads"),
    (("environment", "python"), "python"),
    (("environment", "platform"), "platform"),
)
_GROUPS = ("versions", "libraries", "variables")
_SAID_ALREADY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "infopro")  # by threads, and by the source


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """A line for each thing that a run's record and one made here do not have in common.

    Example:
        >>> differences({"data_hash": "1"}, {"data_hash": "2"})
        ['data: 1 there, 2 here']
    """
    return [
        f"{name}: {_said(left)} there, {_said(right)} here"
        for name, left, right in _pairs(there, here)
        if left != right
    ]


def unrecorded(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What an earlier version did not write down.

    Example:
        >>> unrecorded({}, {"data_hash": "2"})
        ['data']
    """
    missing = [name for place, name in _PLACES if _at(there, place) is None and _at(here, place) is not None]
    groups = [name for name in _GROUPS if name not in _environment(there) and name in _environment(here)]
    return missing + groups


def _pairs(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    same_source = there.get("source_hash") == here.get("source_hash") is not None
    for place, name in _PLACES:
        left, right = _at(there, place), _at(here, place)
        if left is not None and right is not None and not (same_source and "commit" in place):
            yield name, left, right
    for group in _GROUPS:
        left, right = _environment(there).get(group), _environment(here).get(group)
        if left is None or right is None:
            continue
        # older records know fewer packages; of variables, absence is a value
        known = left if group == "versions" else {**left, **right}
        for name in [name for name in known if name not in _SAID_ALREADY]:
            yield name, left.get(name), right.get(name)


def _environment(record: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = record.get("environment") or {}
    return found


def _at(record: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    value: Any = record
    for name in place:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _said(value: Any) -> str:
    return "none" if value is None else str(value)
