"""Runs images once through a frozen network, for all probes: decoders train and test, features are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infopro.analysis.decoding import BestConstant, Decoders
from infopro.analysis.pooling import PooledMap
from infopro.data import ImageData, Images, num_batches
from infopro.errors import BadInput
from infopro.tasks import Task
from infopro.training.reading import plain_batches

__all__ = ["INPUT", "NetworkPass", "OnStep", "unreported"]

INPUT = "input"  # the image itself, as if it were a block

Bytes = NDArray[np.uint8]
OnStep = Callable[[str, int, int], object]  # what is being done, how many steps of it are done, of how many


def unreported(what: str, done: int, total: int) -> None:
    """An `OnStep` for whoever does not watch."""


@dataclass(frozen=True, eq=False)
class NetworkPass:
    """How images reach the probes; unaugmented, normalised as the data says."""

    features_of: Callable[[Tensor], dict[str, Tensor]]
    task: Task
    data: ImageData
    batch_size: int
    device: torch.device
    num_workers: int
    pools: Mapping[str, PooledMap]  # of each stored block
    on_step: OnStep

    def average(self, images: Images) -> BestConstant:
        """The best constant image of these; the network does not run."""
        constant = BestConstant()
        for number, inputs in enumerate(self._inputs(images, "mean image")):
            if number == 0:
                self.task.check_unit_range(inputs)
            constant.train(self.task.to_unit(inputs))
        return constant

    def train(
        self,
        images: Images,
        stored: Mapping[str, Tensor],
        decoders: Decoders | None,
        *,
        epochs: int,
        seed: int,
    ) -> None:
        """Store the images' features in their order, and train the decoders; later epochs shuffle."""
        for epoch in range(epochs):
            what = "training images" if epoch == 0 else f"training images, pass {epoch + 1}"
            for place, features, unit in self._run(images, what, shuffle=epoch > 0, seed=seed, epoch=epoch):
                if epoch == 0:
                    self._store(stored, place, features)
                if decoders is not None:
                    decoders.step(features, unit)

    def test(
        self,
        images: Images,
        stored: Mapping[str, Tensor],
        decoders: Decoders | None,
        constant: BestConstant | None,
    ) -> None:
        """Store the images' features in their order, and test what draws them."""
        for place, features, unit in self._run(images, "test images"):
            self._store(stored, place, features)
            if constant is not None:
                constant.test(unit)
            if decoders is not None:
                decoders.test(features, unit)

    def draw(self, decoders: Decoders, images: Images, *, seed: int) -> tuple[Bytes, dict[str, Bytes]]:
        """The images and what each block's decoder makes of them, uint8 [n, H, W, C]."""
        originals, drawn = [], []
        for _, features, unit in self._run(images, "shown images"):
            originals.append(unit)
            drawn.append(decoders.draw(features, seed=seed))
        return _as_bytes(originals), {block: _as_bytes([part[block] for part in drawn]) for block in drawn[0]}

    def _run(
        self, images: Images, what: str, *, shuffle: bool = False, seed: int = 0, epoch: int = 0
    ) -> Iterator[tuple[slice, dict[str, Tensor], Tensor]]:
        """Places in the order of reading, features of the images there, and the images in [0, 1]."""
        start = 0
        for inputs in self._inputs(images, what, shuffle=shuffle, seed=seed, epoch=epoch):
            features = {INPUT: inputs, **self.features_of(inputs)}
            if start == 0:
                _check_finite(features)
            yield slice(start, start + len(inputs)), features, self.task.to_unit(inputs)
            start += len(inputs)

    def _inputs(
        self, images: Images, what: str, *, shuffle: bool = False, seed: int = 0, epoch: int = 0
    ) -> Iterator[Tensor]:
        found = plain_batches(
            images,
            self.data,
            batch_size=self.batch_size,
            device=self.device,
            num_workers=self.num_workers,
            shuffle=shuffle,
            seed=seed,
            epoch=epoch,
        )
        total = num_batches(images, batch_size=self.batch_size)
        for number, (inputs, _) in enumerate(found, start=1):
            yield inputs
            self.on_step(what, number, total)

    def _store(self, stored: Mapping[str, Tensor], place: slice, features: Mapping[str, Tensor]) -> None:
        for block, maps in stored.items():
            maps[place] = self.pools[block](features[block]).cpu()


def _check_finite(features: Mapping[str, Tensor]) -> None:
    for block, values in features.items():
        if not values.isfinite().all():
            raise BadInput(
                f"the features of {block} are not finite",
                got="NaN or infinity in the first images",
                remedy="analyse an earlier checkpoint: this training has diverged",
            )


def _as_bytes(images: Sequence[Tensor]) -> Bytes:
    """Batches of images [N, C, H, W] in [0, 1] -> uint8 [all, H, W, C]."""
    whole = torch.cat(list(images)).permute(0, 2, 3, 1)
    return np.asarray((255 * whole).round().to(torch.uint8).cpu().contiguous().numpy())
