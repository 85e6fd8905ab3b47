"""The networks of this package: every public file's `MODELS`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from torch import nn

from infopro._plugins import public_modules
from infopro.errors import BadConfiguration
from infopro.models._registry import Construction, ImageSize, InputRequirement

__all__ = ["EXTRA", "PREFIX", "build", "construction", "has", "names", "requirement"]

PREFIX = ""
EXTRA = ""


@cache
def _factories() -> dict[str, Callable[..., nn.Module]]:
    found: dict[str, Callable[..., nn.Module]] = {}
    for module in public_modules("infopro.models", [str(Path(__file__).parent)]).values():
        found.update(module.MODELS)
    return found


def names() -> list[str]:
    return sorted(_factories())


def has(name: str) -> bool:
    return name in _factories()


def requirement(name: str) -> InputRequirement:
    return InputRequirement(channels=None, image_size=None, smallest=4, fixed=False)


def construction(
    name: str, *, num_classes: int, in_channels: int, image_size: ImageSize | None
) -> Construction:
    options = {"num_classes": num_classes, "in_channels": in_channels}
    return Construction("infopro", "infopro.models.create", (name,), options)


def build(
    name: str, *, num_classes: int, in_channels: int, image_size: ImageSize | None, pretrained: bool
) -> nn.Module:
    if pretrained:
        raise BadConfiguration(
            "no pretrained weights are published",
            got=name,
            remedy="leave pretrained out, or take a timm/ network",
        )
    return _factories()[name](num_classes=num_classes, in_channels=in_channels)
