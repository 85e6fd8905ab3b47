"""Pillow, imported where it is used."""

from __future__ import annotations

from typing import Any

from infopro.data._packages import import_package

__all__ = ["pillow"]


def pillow(module: str = "Image") -> Any:
    """PIL.Image, or another module of it; raises `MissingPackage` with the command that installs it."""
    return import_package(f"PIL.{module}", extra="vision", purpose="pictures of predictions")
