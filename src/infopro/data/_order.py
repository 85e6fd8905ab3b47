"""Class-balanced choices of images."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["balanced_order", "held_out_mask"]


def _ranks(labels: Tensor) -> Tensor:
    """For each position the number of earlier positions with its label, int64 [N]."""
    by_class = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels)
    starts = torch.cumsum(counts, 0) - counts
    ranks = torch.empty_like(labels)
    ranks[by_class] = torch.arange(len(labels)) - starts[labels[by_class]]
    return ranks


def balanced_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """A random order, int64 [N], of which every beginning holds the classes in as equal numbers as it can."""
    shuffled = torch.randperm(len(labels), generator=generator)
    return shuffled[torch.argsort(_ranks(labels[shuffled]), stable=True)]


def held_out_mask(labels: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """True, bool [N], for this fraction of each class: at least one of it and never all, where it has two."""
    shuffled = torch.randperm(len(labels), generator=generator)
    counts = torch.bincount(labels)
    wanted = (counts * fraction).round().long().clamp(min=1)
    wanted = torch.minimum(wanted, (counts - 1).clamp(min=0))
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[shuffled] = _ranks(labels[shuffled]) < wanted[labels[shuffled]]
    return mask
