"""Stored features with what is to be predicted from them, read in standardised batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from infopro.analysis.pooling import pooled

__all__ = ["MOST_DEVIATIONS", "Examples", "View", "view_of"]

MOST_DEVIATIONS = 10.0  # of a standardised feature
_CHUNK = 256  # images whose channels are summed at once


@dataclass(frozen=True, eq=False)
class Examples:
    """Images as they are stored: the features of each block, and the numbers that probes predict."""

    maps: Mapping[str, Tensor]  # block -> float32 [N, C, h, w]
    targets: Mapping[str, Tensor]  # "task", "nuisance" -> int64 [N, G]

    @property
    def all(self) -> Tensor:
        """int64 [N]: every place."""
        return torch.arange(len(next(iter(self.targets.values()))))


@dataclass(frozen=True, eq=False)
class View:
    """A map averaged down to a size, then standardised channel by channel, to at most ±10 deviations.

    A unit that fired for one training image only has a tiny deviation: where it fires again, it would drown
    all others.

    Example:
        >>> maps = torch.tensor([[0.0, 2.0], [2.0, 4.0]]).view(2, 1, 1, 2)
        >>> view_of(maps, (1, 1)).of(maps).flatten()
        tensor([-1.,  1.])
    """

    size: tuple[int, int]
    mean: Tensor  # float32 [C, 1, 1]
    inverse: Tensor  # of the standard deviation, likewise

    def of(self, maps: Tensor) -> Tensor:
        """[N, C, h, w] -> [N, C, *size], on the same device."""
        centred = pooled(maps, self.size) - self.mean.to(maps.device)
        return (centred * self.inverse.to(maps.device)).clamp_(-MOST_DEVIATIONS, MOST_DEVIATIONS)


def view_of(maps: Tensor, size: tuple[int, int]) -> View:
    """The view with mean 0 and variance 1 over these images and all places; a constant is only centred."""
    number = len(maps) * size[0] * size[1]
    mean = _channel_sums(maps, lambda chunk: pooled(chunk, size)) / number
    squares = _channel_sums(maps, lambda chunk: (pooled(chunk, size) - mean[:, None, None]) ** 2)
    deviation = (squares / number).sqrt()
    constant = deviation <= 1e-6 * (1e-6 + mean.abs())
    inverse = 1 / torch.where(constant, 1.0, deviation)
    return View(size, mean.float()[:, None, None], inverse.float()[:, None, None])


def _channel_sums(maps: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """float64 [C]."""
    chunks = [of(chunk.double()).sum((0, 2, 3)) for chunk in torch.split(maps, _CHUNK)]
    return torch.stack(chunks).sum(dim=0)
