"""Optional packages, imported where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from infopro.errors import MissingPackage

__all__ = ["import_package"]


def import_package(name: str, *, extra: str, purpose: str) -> ModuleType:
    """The module `name`, or MissingPackage with the command that installs it.

    A torchvision built for another torch raises RuntimeError at import, so every failure counts.
    """
    package = name.split(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        reason = None if error.name == package else str(error)
        raise MissingPackage(package, extra=extra, purpose=purpose, reason=reason) from error
    except Exception as error:
        raise MissingPackage(package, extra=extra, purpose=purpose, reason=str(error)) from error
