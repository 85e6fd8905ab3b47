"""What the local modules are trained on; a new objective is one new file, which declares its `VARIANTS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from infopro._plugins import public_modules
from infopro.errors import BadConfiguration, UnknownName
from infopro.objectives._base import Objective, StageObjective
from infopro.objectives._losses import (
    reconstruction_loss,
    reconstruction_loss_of_logits,
    supervised_contrastive,
)
from infopro.objectives._weights import interpolate
from infopro.objectives.dgl import DGL
from infopro.objectives.end_to_end import EndToEnd
from infopro.objectives.greedy import Greedy
from infopro.objectives.infopro import InfoPro

__all__ = [
    "DGL",
    "EndToEnd",
    "Greedy",
    "InfoPro",
    "Objective",
    "StageObjective",
    "from_name",
    "interpolate",
    "list_objectives",
    "reconstruction_loss",
    "reconstruction_loss_of_logits",
    "supervised_contrastive",
]


def from_name(name: str, **options: Any) -> Objective:
    """The objective of that name, with its options: what a command line or a recipe has.

    Raises:
        UnknownName: no file of this package declares it; the message lists the near names.
        BadConfiguration: an option that it does not have, that contradicts its name or is out of range.

    Example:
        >>> from_name("infopro-contrast", reconstruction_weight=(6, 1)).task_loss
        'contrast'
    """
    if name not in _variants():
        raise UnknownName("objective", name, _variants())
    kind, fixed = _variants()[name]
    _check_options(name, options, allowed={field.name for field in fields(kind)}, fixed=fixed)
    return kind(**{**options, **fixed})


def list_objectives() -> list[str]:
    """Names of the objectives, in order."""
    return list(_variants())


def _check_options(
    name: str, options: Mapping[str, Any], *, allowed: set[str], fixed: Mapping[str, Any]
) -> None:
    unknown = sorted(options.keys() - allowed)
    if unknown:
        free = sorted(allowed - fixed.keys())
        raise BadConfiguration(
            f"unknown option of {name}", got=", ".join(unknown), allowed=", ".join(free) or "no options"
        )
    for option in fixed.keys() & options.keys():
        if options[option] != fixed[option]:
            raise BadConfiguration(
                f"{option} contradicts the name {name}",
                got=repr(options[option]),
                allowed=repr(fixed[option]),
            )


@cache
def _variants() -> dict[str, tuple[type[Objective], dict[str, Any]]]:
    variants: dict[str, tuple[type[Objective], dict[str, Any]]] = {}
    for file, module in public_modules(__name__, list(__path__)).items():
        assert not variants.keys() & module.VARIANTS.keys(), f"{file}.py declares a name for the second time"
        variants |= module.VARIANTS
    return dict(sorted(variants.items()))
