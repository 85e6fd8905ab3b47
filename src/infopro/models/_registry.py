"""What the sources of networks (our own files, timm, torchvision, smp) have in common."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import nn

from infopro.errors import BadConfiguration, InfoProError, MissingPackage

__all__ = [
    "Construction",
    "ImageSize",
    "InputRequirement",
    "Registry",
    "clear_build_errors",
    "clear_download_errors",
    "import_library",
]

ImageSize = tuple[int, int]  # rows, columns
_EXTRA = {"segmentation_models_pytorch": "seg"}  # of the libraries that are not in "vision"


@dataclass(frozen=True)
class InputRequirement:
    """What images a network takes."""

    channels: int | None  # the only number it can be built for; None: any, by `in_channels`
    image_size: int | None  # side in pixels that it was designed for; None: any
    smallest: int  # side in pixels
    fixed: bool  # whether it takes only the size that it was built for, by `image_size`
    multiple_of: int = 1  # what both sides must be divisible by
    dense: bool = False  # whether it predicts a class per pixel: masks instead of labels


@dataclass(frozen=True)
class Construction:
    """The call that builds a network without its weights, in the words of the library that it is of."""

    package: str  # to be imported: "timm"
    function: str  # with the module that has it: "timm.create_model"
    arguments: tuple[str, ...]
    options: dict[str, Any]


class Registry(Protocol):
    """A source of networks; a Python module with these functions is one."""

    PREFIX: str  # in front of every name of this source: "timm/"
    EXTRA: str  # what to install for it: infopro[EXTRA]

    def names(self) -> list[str]:
        """Every network's name, without the prefix."""

    def has(self, name: str) -> bool:
        """Whether a network has this name, without the prefix."""

    def requirement(self, name: str) -> InputRequirement:
        """What images the network takes."""

    def construction(
        self, name: str, *, num_classes: int, in_channels: int, image_size: ImageSize | None
    ) -> Construction:
        """What the library is asked for, without pretrained weights."""

    def build(
        self, name: str, *, num_classes: int, in_channels: int, image_size: ImageSize | None, pretrained: bool
    ) -> nn.Module:
        """A new network."""


def import_library(package: str, *, names: str | None = None) -> ModuleType:
    """Import a library of networks, whose names look like `names`, or say which command repairs it."""
    purpose = f"networks by the name {names or package + '/NAME'}"
    extra = _EXTRA.get(package, "vision")
    try:
        return importlib.import_module(package)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == package
        reason = None if absent else _first_line(error)
        raise MissingPackage(package, extra=extra, purpose=purpose, reason=reason) from error
    except Exception as error:
        # torchvision built for another torch raises RuntimeError here, and takes timm with it
        repair = f"reinstall torch {torch.__version__} and torchvision together, from one package index"
        reason = f"{_first_line(error)}: {repair}"
        raise MissingPackage(package, extra=extra, purpose=purpose, reason=reason) from error


@contextmanager
def clear_build_errors(name: str) -> Iterator[None]:
    """Turn a library's refusal to build a network into a line that says which options it refused."""
    try:
        yield
    except InfoProError:
        raise
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise BadConfiguration(
            f"{name} cannot be built with these options",
            got=_first_line(error),
            remedy="change image_size or in_channels, or take another network",
        ) from error


@contextmanager
def clear_download_errors(name: str) -> Iterator[None]:
    """Turn whatever a hub raises (none published, offline, no disk) into one line."""
    try:
        yield
    except InfoProError:
        raise
    except Exception as error:
        raise BadConfiguration(
            f"the pretrained weights of {name} could not be loaded",
            got=_first_line(error),
            remedy="connect this machine, copy the weights into its cache, or leave pretrained out",
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
