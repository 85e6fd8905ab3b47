"""Paths and foreign errors as one printable line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["listed", "one_line", "quoted"]

SHOWN = 5  # files or folders that one message names


def quoted(path: Path) -> str:
    """The path as it can be printed everywhere, also where the file system's bytes are not text."""
    return repr(str(path))


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def listed(items: Sequence[str]) -> str:
    """The first items, and how many there are besides."""
    more = f", and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more
