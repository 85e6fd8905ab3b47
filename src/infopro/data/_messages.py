"""Paths and foreign errors as one printable line."""

from __future__ import annotations

from pathlib import Path

__all__ = ["one_line", "quoted"]


def quoted(path: Path) -> str:
    """The path as it can be printed everywhere, also where the file system's bytes are not text."""
    return repr(str(path))


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
