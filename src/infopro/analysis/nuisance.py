"""What varies in the images and is known, but is not the class: as numbers that a probe can predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from infopro.data import Images, ImageTensors

__all__ = ["Factor", "factors_of"]


@dataclass(frozen=True, eq=False)
class Factor:
    """One nuisance, in whole numbers from 0."""

    name: str
    train: Tensor  # int64 [N]
    test: Tensor  # int64 [M]
    num_values: int


def factors_of(train: Images, test: Images, *, bins: int) -> tuple[tuple[Factor, ...], tuple[str, ...]]:
    """The factors that probes can predict, and why each other one is left out, a sentence each.

    A factor with more than `bins` values among the training images is cut at their quantiles. Left out is
    one that is not known for both parts, that is constant in either, that determines the class (each of its
    values comes with one class only; seen where values repeat), or that numbers things of which the test part
    has none in common with the training part, such as the object that was photographed.
    """
    if not (isinstance(train, ImageTensors) and isinstance(test, ImageTensors)):
        return (), ()
    found, notes = [], []
    for name in sorted({*train.nuisance, *test.nuisance}):
        reason = _unsuited(name, train, test)
        if reason is None:
            factor = _binned(name, train.nuisance[name].cpu(), test.nuisance[name].cpu(), bins)
            reason = None if _varies(factor) else "it is constant"
        if reason is None:
            found.append(factor)
        else:
            notes.append(f"nuisance {name!r} is left out: {reason}")
    return tuple(found), tuple(notes)


def _unsuited(name: str, train: ImageTensors, test: ImageTensors) -> str | None:
    if not (_known(name, train.nuisance) and _known(name, test.nuisance)):
        return "it is not one number per image of both parts"
    values = train.nuisance[name].cpu()
    if values.is_floating_point():
        return None
    if not torch.isin(test.nuisance[name].cpu(), values).any():
        return "no value of the test images occurs among the training images"
    return "it determines the class" if _determines(values, train.labels.cpu()) else None


def _known(name: str, nuisance: Mapping[str, Tensor]) -> bool:
    return name in nuisance and nuisance[name].dim() == 1


def _determines(values: Tensor, labels: Tensor) -> bool:
    pairs = torch.stack([values.long(), labels])
    num_values = len(torch.unique(values))
    return 2 * num_values <= len(values) and torch.unique(pairs, dim=1).shape[1] == num_values > 1


def _binned(name: str, train: Tensor, test: Tensor, bins: int) -> Factor:
    train, test = train.double(), test.double()
    values = torch.unique(train)
    if len(values) > bins:  # each bin begins with a value of its own, as equally full as ties allow
        starts = train.sort().values[len(train) * torch.arange(1, bins) // bins]
        values = torch.unique(torch.cat([values[:1], starts]))
    edges = values[1:]
    cut_train, cut_test = (torch.bucketize(values, edges, right=True) for values in (train, test))
    return Factor(name, cut_train, cut_test, num_values=len(edges) + 1)


def _varies(factor: Factor) -> bool:
    return all(len(torch.unique(values)) > 1 for values in (factor.train, factor.test))
