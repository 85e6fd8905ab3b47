"""What one module is trained on when the others have finished or not begun: images, or cached features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from infopro.data import ImageData, Images, ImageTensors, batches
from infopro.engines.crossings import without_images
from infopro.engines.feature_cache import FeatureCache
from infopro.training.reading import channels_last, evaluation_batch
from infopro.types import Batch

__all__ = ["Feeding", "FromCache", "FromImages", "ModuleBatch", "Source"]


@dataclass(frozen=True)
class ModuleBatch:
    """One batch as it reaches a module."""

    tensors: Mapping[str, Tensor]  # what crosses the cut before it
    targets: Tensor
    images: Tensor | None  # None where no objective reads them

    @property
    def batch(self) -> Batch:
        """What the module's objective may look at."""
        return without_images(self.targets) if self.images is None else Batch(self.images, self.targets)


class Source(Protocol):
    """Where a module's batches come from."""

    def epoch(self, epoch: int) -> Iterator[ModuleBatch]:
        """The training images in the order of this epoch, 1-based."""

    def view(self, view: int) -> Iterator[ModuleBatch]:
        """The training images as a view (0-based) of the cache holds them: in the order of epoch view + 1."""

    def test(self) -> Iterator[ModuleBatch]:
        """The test images."""


@dataclass(frozen=True)
class Feeding:
    """A data set, and how it is read in a run."""

    data: ImageData
    batch_size: int
    seed: int
    views: int  # 0: one, without augmentation
    device: torch.device
    num_workers: int
    on_batch: Callable[[], object] = lambda: None  # before every batch, of training, a test or a recording

    @property
    def num_views(self) -> int:
        return max(self.views, 1)

    @property
    def test_batch(self) -> int:
        return evaluation_batch(self.data.test, self.data.image_shape)

    def order(self, epoch: int) -> list[Tensor]:
        """The positions of the images in every batch of an epoch."""
        return self._positions(self.data.train, self.batch_size, epoch)

    def places(self, images: Images, batch_size: int) -> list[Tensor]:
        """Batch after batch, the rows of a cache in the order in which they were written."""
        return self._positions(images, batch_size, epoch=None)

    def _positions(self, images: Images, batch_size: int, epoch: int | None) -> list[Tensor]:
        # the order is whatever `batches` says: it is asked with images that are nothing but their number
        blank = torch.zeros(len(images), 1, 1, 1, dtype=torch.uint8)
        numbered = ImageTensors(blank, torch.arange(len(images)))
        found = batches(
            numbered,
            batch_size=batch_size,
            mean=(0.0,),
            std=(1.0,),
            augmentation=None,
            shuffle=epoch is not None,
            seed=self.seed,
            epoch=epoch or 0,
            device="cpu",
        )
        return [numbers for _, numbers in found]


@dataclass(frozen=True)
class FromImages:
    """The first module's source."""

    feeding: Feeding

    def epoch(self, epoch: int) -> Iterator[ModuleBatch]:
        return self._training(epoch, augmented=True)

    def view(self, view: int) -> Iterator[ModuleBatch]:
        return self._training(view + 1, augmented=self.feeding.views > 0)

    def test(self) -> Iterator[ModuleBatch]:
        return self._read(
            self.feeding.data.test, self.feeding.test_batch, shuffle=False, epoch=0, augmented=False
        )

    def _training(self, epoch: int, *, augmented: bool) -> Iterator[ModuleBatch]:
        data = self.feeding.data
        return self._read(data.train, self.feeding.batch_size, shuffle=True, epoch=epoch, augmented=augmented)

    def _read(
        self, images: Images, batch_size: int, *, shuffle: bool, epoch: int, augmented: bool
    ) -> Iterator[ModuleBatch]:
        data = self.feeding.data
        found = batches(
            images,
            batch_size=batch_size,
            mean=data.mean,
            std=data.std,
            augmentation=data.augmentation if augmented else None,
            shuffle=shuffle,
            seed=self.feeding.seed,
            epoch=epoch,
            device=self.feeding.device,
            num_workers=self.feeding.num_workers,
        )
        for pixels, targets in channels_last(found):
            self.feeding.on_batch()
            yield ModuleBatch({"value-0": pixels}, targets, pixels)


@dataclass(frozen=True)
class FromCache:
    """A later module's source."""

    feeding: Feeding
    training: FeatureCache
    testing: FeatureCache

    def epoch(self, epoch: int) -> Iterator[ModuleBatch]:
        view = (epoch - 1) % self.feeding.num_views
        place = torch.cat(self.feeding.order(view + 1)).argsort()  # of every image, in this view
        for positions in self.feeding.order(epoch):
            yield self._read(self.training, place[positions], view)

    def view(self, view: int) -> Iterator[ModuleBatch]:
        for rows in self.feeding.places(self.feeding.data.train, self.feeding.batch_size):
            yield self._read(self.training, rows, view)

    def test(self) -> Iterator[ModuleBatch]:
        for rows in self.feeding.places(self.feeding.data.test, self.feeding.test_batch):
            yield self._read(self.testing, rows, 0)

    def _read(self, cache: FeatureCache, rows: Tensor, view: int) -> ModuleBatch:
        self.feeding.on_batch()
        found = cache.read(rows, view=view, device=self.feeding.device)
        targets, images = found.pop("targets"), found.pop("images", None)
        return ModuleBatch(found, targets, images)
