"""The images that probes are trained and tested on, and whether they are enough."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from infopro.analysis.nuisance import Factor, factors_of
from infopro.analysis.probe_settings import ProbeSettings
from infopro.data import ImageData, Images, counter_generator, held_out_images, labels_of, limit
from infopro.errors import BadData

__all__ = ["LEAST_IMAGES", "ProbeImages", "choose_images"]

LEAST_IMAGES = 10  # of a class, to train probes of it


@dataclass(frozen=True, eq=False)
class ProbeImages:
    """A class-balanced part of a data set: the training part in random order, the test part in its own."""

    data: ImageData
    factors: tuple[Factor, ...]  # nuisance that can be predicted
    notes: tuple[str, ...]

    @property
    def train(self) -> Images:
        return self.data.train

    @property
    def test(self) -> Images:
        return self.data.test

    def held_out(self, settings: ProbeSettings, seed: int) -> Tensor:
        """bool [N]: the training images on which this seed's probes choose their epoch."""
        generator = counter_generator("probe held out", seed)
        return held_out_images(self.train, settings.hold_out, generator)


def choose_images(data: ImageData, settings: ProbeSettings) -> ProbeImages:
    """The images of this seed.

    Raises:
        BadData: fewer than 10 training images of a class, or no test image of it.
    """
    chosen = limit(data, train=settings.train_images, test=settings.test_images, seed=settings.seed)
    generator = counter_generator("probe images", settings.seed)
    order = torch.randperm(len(chosen.train), generator=generator)
    shuffled = replace(chosen, train=chosen.train.take(order))
    _check_enough(shuffled)
    factors, notes = factors_of(shuffled.train, shuffled.test, bins=settings.nuisance_bins)
    return ProbeImages(shuffled, factors, notes)


def _check_enough(data: ImageData) -> None:
    for part, images, least in (("training", data.train, LEAST_IMAGES), ("test", data.test, 1)):
        counts = torch.bincount(labels_of(images).cpu(), minlength=data.num_classes)
        fewest = int(counts.argmin())
        if counts[fewest] < least:
            raise BadData(
                f"too few {part} images of {data.name} for the probes",
                got=f"{int(counts[fewest])} of class {data.class_names[fewest]!r}",
                allowed=f"{least} or more of each of the {data.num_classes} classes",
                remedy=f"probe with more {part} images",
            )
