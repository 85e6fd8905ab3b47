"""Batches whose order and augmentation depend on counters only, so that a run resumes exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from infopro.data._decode import central_crop, random_crop
from infopro.data._seeds import counter_generator
from infopro.data._transfer import to_device
from infopro.data._types import Augmentation, ImageFiles, Images, ImageTensors
from infopro.data.augment import augment, normalize
from infopro.errors import BadConfiguration, BadData

__all__ = ["batch_sizes", "batches", "num_batches", "share"]


def num_batches(split: Images, *, batch_size: int) -> int:
    """How many batches an epoch has: a last batch of one image joins the batch before it.

    BatchNorm cannot train on a single image, and dropping it would leave it out of evaluations. With a
    batch size of 1, or one image in all, single images stay as they are.

    Errors:
        BadConfiguration: a batch size below 1.

    Example:
        >>> labels = torch.zeros(9, dtype=torch.int64)
        >>> images = ImageTensors(torch.zeros(9, 1, 2, 2, dtype=torch.uint8), labels)
        >>> num_batches(images, batch_size=4), num_batches(images, batch_size=5)
        (2, 2)
    """
    if batch_size < 1:
        raise BadConfiguration("batch size is too small", got=batch_size, allowed="1 or more")
    full, rest = divmod(len(split), batch_size)
    joins = rest == 1 and full > 0 and batch_size > 1
    return full + (1 if rest and not joins else 0)


def batch_sizes(split: Images, *, batch_size: int) -> tuple[int, ...]:
    """How many images each batch of an epoch has.

    Example:
        >>> labels = torch.zeros(9, dtype=torch.int64)
        >>> images = ImageTensors(torch.zeros(9, 1, 2, 2, dtype=torch.uint8), labels)
        >>> batch_sizes(images, batch_size=4)
        (4, 5)
    """
    total = num_batches(split, batch_size=batch_size)
    full = (total - 1) * batch_size
    return (*[batch_size] * (total - 1), len(split) - full) if total else ()


def share(size: int, index: int, number: int) -> slice:
    """The part of a batch that one of `number` processes gets; the shares differ by one image at most.

    Example:
        >>> share(8, 0, 3), share(8, 1, 3), share(8, 2, 3)
        (slice(0, 2, None), slice(2, 5, None), slice(5, 8, None))
    """
    return slice(index * size // number, (index + 1) * size // number)


def batches(
    split: Images,
    *,
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    augmentation: Augmentation | None,
    shuffle: bool,
    seed: int,
    epoch: int,
    device: torch.device | str,
    first_batch: int = 0,
    num_workers: int = 0,
    part: tuple[int, int] = (0, 1),
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of normalised images, float32 [N, C, H, W], and labels, int64 [N], on `device`.

    The order depends on (seed, epoch), the augmentation on (seed, epoch, batch) and for files on (seed,
    epoch, place of the image in the set). Starting at `first_batch` therefore gives, bit for bit, what the
    undisturbed epoch gives from there on, on any device and, for files, with any number of workers.
    ImageTensors are augmented where they are held: move them to the device first. `num_workers` counts for
    ImageFiles only. `part` = (d, D) gives the d-th of D consecutive shares of every batch, as the whole
    batch would have it.

    Errors:
        BadConfiguration: a batch size below 1, a first batch outside the epoch. BadData: an image file that
        cannot be read; the message names it.
    """
    total = num_batches(split, batch_size=batch_size)
    if not 0 <= first_batch <= total:
        raise BadConfiguration("first batch is outside the epoch", got=first_batch, allowed=f"0 to {total}")
    order = torch.arange(len(split))
    if shuffle:
        order = torch.randperm(len(split), generator=counter_generator("order", seed, epoch))
    sizes = batch_sizes(split, batch_size=batch_size)
    chosen = list(torch.split(order, list(sizes)))[first_batch:]
    plan, device = _Plan(augmentation, seed, epoch, first_batch, chosen, part), torch.device(device)
    raw = (
        _from_tensors(split, plan)
        if isinstance(split, ImageTensors)
        else _from_files(split, plan, num_workers, pinned=device.type == "cuda")
    )
    return (
        (normalize(to_device(images, device), mean, std), to_device(labels, device)) for images, labels in raw
    )


@dataclass(frozen=True)
class _Plan:
    """What an epoch, or the rest of it, consists of."""

    augmentation: Augmentation | None
    seed: int
    epoch: int
    first_batch: int
    chosen: list[Tensor]  # positions in the data set, per batch
    part: tuple[int, int]  # which share of each batch is wanted


def _from_tensors(split: ImageTensors, plan: _Plan) -> Iterator[tuple[Tensor, Tensor]]:
    for batch, chosen in enumerate(plan.chosen, start=plan.first_batch):
        here = to_device(chosen, split.images.device)
        images = split.images.index_select(0, here)  # on a CPU ten times as fast as split.images[here]
        if plan.augmentation is not None:
            generator = counter_generator("augmentation", plan.seed, plan.epoch, batch)
            images = augment(images, plan.augmentation, generator)  # whole: it draws for the whole batch
        wanted = share(len(here), *plan.part)
        yield images[wanted], split.labels[here[wanted]]


def _from_files(
    split: ImageFiles, plan: _Plan, num_workers: int, *, pinned: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    loader: DataLoader[Any] = DataLoader(
        _FileReader(split, plan),
        batch_sampler=[chosen[share(len(chosen), *plan.part)].tolist() for chosen in plan.chosen],
        num_workers=num_workers,
        collate_fn=_stack,
        pin_memory=pinned,  # in a thread of the loader's
        generator=torch.Generator(),  # else the loader draws from, and so moves, the global random stream
    )
    for batch in loader:
        if isinstance(batch, BadData):
            raise batch
        yield batch


class _FileReader(Dataset[tuple[Tensor, int] | BadData]):
    def __init__(self, split: ImageFiles, plan: _Plan) -> None:
        self.split = split
        self.labels = split.labels.tolist()
        self.plan = replace(plan, chosen=[])  # not copied to every worker

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, int] | BadData:
        # returned, not raised: the loader would rewrite the message into a worker's traceback
        try:
            return self._read(index), self.labels[index]
        except BadData as error:
            return error

    def _read(self, index: int) -> Tensor:
        path, size = self.split.paths[index], self.split.image_size
        augmentation = self.plan.augmentation
        if augmentation is None:
            return central_crop(path, size)
        generator = counter_generator("augmentation", self.plan.seed, self.plan.epoch, index)
        if augmentation.random_resized_crop:
            pixels = random_crop(path, size, generator)
        else:
            pixels = central_crop(path, size)
        return augment(pixels[None], replace(augmentation, random_resized_crop=False), generator)[0]


def _stack(samples: list[tuple[Tensor, int] | BadData]) -> tuple[Tensor, Tensor] | BadData:
    good = []
    for sample in samples:
        if isinstance(sample, BadData):
            return sample
        good.append(sample)
    images_NHWC = torch.stack([image.permute(1, 2, 0) for image, _ in good])  # as they lie in memory
    return images_NHWC.permute(0, 3, 1, 2), torch.tensor([label for _, label in good])
