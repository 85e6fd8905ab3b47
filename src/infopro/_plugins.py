"""Finds plug-ins: in a package of plug-ins, a public file IS the registration."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

__all__ = ["public_modules"]


def public_modules(package: str, path: list[str]) -> dict[str, ModuleType]:
    """The modules of a package whose names carry no leading underscore, imported, by name and in order."""
    names = sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))
    return {name: importlib.import_module(f"{package}.{name}") for name in names}
