"""Imports the packages of the `report` extra where they are used, and names the extra when one is missing."""

from __future__ import annotations

import importlib
from typing import Any

from infopro.errors import MissingPackage

__all__ = ["report_package"]


def report_package(name: str, *, distribution: str | None = None) -> Any:
    """A module of the `report` extra; raises `MissingPackage` with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]
        raise MissingPackage(
            distribution or name, extra="report", purpose="the report", reason=None if absent else str(error)
        ) from error
