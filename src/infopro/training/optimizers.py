"""The optimizers of the published recipes, by name."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from infopro.errors import UnknownName

__all__ = ["list_optimizers", "make_optimizer"]


def make_optimizer(
    name: str,
    parameters: Iterable[nn.Parameter],
    *,
    learning_rate: float,
    weight_decay: float,
    momentum: float = 0.9,
    nesterov: bool = True,
) -> torch.optim.Optimizer:
    """One optimizer over the network's and the heads' parameters, as InfoPro uses it.

    Weight decay applies to every parameter, BatchNorm's included, as published. `momentum` and `nesterov` are
    SGD's.
    """
    trainable = [p for p in parameters if p.requires_grad]
    if name == "sgd":
        return torch.optim.SGD(
            trainable,
            lr=learning_rate,
            momentum=momentum,
            weight_decay=weight_decay,
            nesterov=nesterov and momentum > 0,
        )
    if name == "adamw":
        return torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=weight_decay)
    raise UnknownName("optimizer", name, list_optimizers())


def list_optimizers() -> list[str]:
    """Names of the optimizers, in order."""
    return ["adamw", "sgd"]
