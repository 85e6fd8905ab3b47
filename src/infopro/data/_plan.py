"""What an epoch, or the rest of it, consists of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from infopro.data._seeds import counter_generator
from infopro.data._types import Augmentation, JointAugmentation

__all__ = ["Plan", "share"]


@dataclass(frozen=True)
class Plan:
    """Which images come in which batch, and how they are varied."""

    augmentation: Augmentation | JointAugmentation | None
    seed: int
    epoch: int
    first_batch: int
    chosen: list[Tensor]  # positions in the data set, per batch
    part: tuple[int, int]  # which share of each batch is wanted
    fill: tuple[int, ...]  # the mean colour, 0 to 255: what surrounds an image that is smaller than its crop

    @property
    def shares(self) -> list[Tensor]:
        """Positions in the data set that are wanted, per batch."""
        return [chosen[share(len(chosen), *self.part)] for chosen in self.chosen]

    def generator(self, place: int) -> torch.Generator:
        """For the augmentation of the batch, or of the image, of this number."""
        return counter_generator("augmentation", self.seed, self.epoch, place)


def share(size: int, index: int, number: int) -> slice:
    """The part of a batch that one of `number` processes gets; the shares differ by one image at most.

    Example:
        >>> share(8, 0, 3), share(8, 1, 3), share(8, 2, 3)
        (slice(0, 2, None), slice(2, 5, None), slice(5, 8, None))
    """
    return slice(index * size // number, (index + 1) * size // number)
