"""A data set as phases of batches: an epoch of training, a test; the same for all processes of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from infopro.data import (
    VOID,
    ImageData,
    Images,
    ImageTensors,
    MaskFiles,
    MaskTensors,
    batch_sizes,
    batches,
    share,
)
from infopro.data._mask_types import padded_side
from infopro.engines import Engine, Phase

__all__ = ["Reading", "channels_last", "evaluation_batch", "padded", "plain_batches"]

_MOST_IMAGES, _MOST_PIXELS = 1000, 2**22  # of a batch without gradients


def evaluation_batch(images: Images, image_shape: tuple[int, int, int]) -> int:
    """How many images are tested at once: 1,000 small ones, fewer large ones, one where sizes may differ.

    Example:
        >>> from infopro.data import ImageTensors
        >>> pixels = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
        >>> evaluation_batch(ImageTensors(pixels, torch.zeros(1, dtype=torch.int64)), (3, 224, 224))
        83
    """
    size: tuple[int, int] | None = image_shape[1:]
    match images:
        case MaskTensors() | MaskFiles():
            size = images.common_size  # trained on crops, perhaps
        case ImageTensors():
            size = images.images.shape[2], images.images.shape[3]
    if size is None:
        return 1
    height, width = size
    return max(1, min(_MOST_IMAGES, _MOST_PIXELS // (height * width)))


@dataclass(frozen=True)
class Reading:
    """What an engine is fed with: its replica's share of every batch."""

    data: ImageData
    engine: Engine
    batch_size: int
    seed: int
    device: torch.device
    num_workers: int

    def training_phase(self, epoch: int, *, first: int) -> Phase:
        """An epoch, of which `first` batches are done."""
        return self._phase(self.data.train, self.batch_size, epoch, training=True, first=first)

    def test_phase(self, epoch: int) -> Phase:
        """The test set, in order."""
        return self._phase(self.data.test, self._test_batch, epoch, training=False, first=0)

    def training_batches(self, phase: Phase) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled and augmented, by (seed, epoch, batch)."""
        return self._batches(self.data.train, phase, self.batch_size)

    def test_batches(self, phase: Phase) -> Iterator[tuple[Tensor, Tensor]]:
        """In order, without augmentation, of sizes that the network takes."""
        return padded(self._batches(self.data.test, phase, self._test_batch), self.data)

    @property
    def _test_batch(self) -> int:
        return evaluation_batch(self.data.test, self.data.image_shape)

    def _phase(self, images: Images, batch_size: int, epoch: int, *, training: bool, first: int) -> Phase:
        augmentation = self.data.augmentation if training else None
        totals = batch_sizes(images, batch_size=batch_size, augmentation=augmentation)
        shares = [share(total, self.engine.replica, self.engine.replicas) for total in totals]
        sizes = tuple(part.stop - part.start for part in shares)
        return Phase(epoch, training, sizes, totals, first)

    def _batches(self, images: Images, phase: Phase, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        found = batches(
            images,
            batch_size=batch_size,
            mean=self.data.mean,
            std=self.data.std,
            augmentation=self.data.augmentation if phase.training else None,
            shuffle=phase.training,
            seed=self.seed,
            epoch=phase.epoch,
            device=self.device,
            first_batch=phase.first,
            num_workers=self.num_workers,
            part=(self.engine.replica, self.engine.replicas),
        )
        return channels_last(found)


def channels_last(found: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Convolutions are about twice as fast on channels-last images, on CPUs and on GPUs."""
    for images, targets in found:
        yield images.contiguous(memory_format=torch.channels_last), targets


def padded(found: Iterator[tuple[Tensor, Tensor]], data: ImageData) -> Iterator[tuple[Tensor, Tensor]]:
    """Images with masks padded below and on the right to the sides that `data` wants; others as they are.

    Images get zeros, the normalised mean; masks get void, so that no padding is judged.
    """
    if not data.has_masks:
        yield from found
        return
    for images, masks in found:
        rows, columns = masks.shape[1:]
        below, right = (
            padded_side(side, multiple_of=data.multiple_of, smallest=data.smallest) - side
            for side in (rows, columns)
        )
        if below or right:
            padding = (0, right, 0, below)
            images, masks = F.pad(images, padding), F.pad(masks, padding, value=VOID)
        yield images, masks


def plain_batches(
    images: Images,
    data: ImageData,
    *,
    batch_size: int,
    device: torch.device,
    num_workers: int = 0,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images of a data set, normalised as it says, without augmentation; in their order, or shuffled."""
    found = batches(
        images,
        batch_size=batch_size,
        mean=data.mean,
        std=data.std,
        augmentation=None,
        shuffle=shuffle,
        seed=seed,
        epoch=epoch,
        device=device,
        num_workers=num_workers,
    )
    return channels_last(found)
