"""Batches whose order and augmentation depend on counters only, so that a run resumes exactly."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from infopro.data._decode import central_crop, random_crop
from infopro.data._mask_batches import PairReader, joint, pairs_from_tensors
from infopro.data._plan import Plan, share
from infopro.data._seeds import counter_generator
from infopro.data._transfer import to_device
from infopro.data._types import (
    Augmentation,
    ImageFiles,
    Images,
    ImageTensors,
    JointAugmentation,
    MaskFiles,
    MaskTensors,
)
from infopro.data.augment import augment, normalize
from infopro.errors import BadConfiguration, BadData, NotYetSupported

__all__ = ["batch_sizes", "batches", "num_batches", "share"]


Variation = Augmentation | JointAugmentation | None


def num_batches(split: Images, *, batch_size: int, augmentation: Variation = None) -> int:
    """How many batches an epoch has: a last batch of one image joins the batch before it.

    BatchNorm cannot train on a single image, and dropping it would leave it out of evaluations. With a
    batch size of 1, or one image in all, single images stay as they are. So they do where images of different
    sizes (MaskFiles without `common_size`) are read whole, that is with the `augmentation` None.

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
    batch_size = 1 if _one_by_one(split, augmentation) else batch_size
    full, rest = divmod(len(split), batch_size)
    joins = rest == 1 and full > 0 and batch_size > 1
    return full + (1 if rest and not joins else 0)


def batch_sizes(split: Images, *, batch_size: int, augmentation: Variation = None) -> tuple[int, ...]:
    """How many images each batch of an epoch has; see `num_batches`.

    Example:
        >>> labels = torch.zeros(9, dtype=torch.int64)
        >>> images = ImageTensors(torch.zeros(9, 1, 2, 2, dtype=torch.uint8), labels)
        >>> batch_sizes(images, batch_size=4)
        (4, 5)
    """
    total = num_batches(split, batch_size=batch_size, augmentation=augmentation)
    batch_size = 1 if _one_by_one(split, augmentation) else batch_size
    full = (total - 1) * batch_size
    return (*[batch_size] * (total - 1), len(split) - full) if total else ()


def _one_by_one(split: Images, augmentation: Variation) -> bool:
    return isinstance(split, MaskFiles) and split.common_size is None and augmentation is None


def batches(
    split: Images,
    *,
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    augmentation: Variation,
    shuffle: bool,
    seed: int,
    epoch: int,
    device: torch.device | str,
    first_batch: int = 0,
    num_workers: int = 0,
    part: tuple[int, int] = (0, 1),
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of normalised images, float32 [N, C, H, W], and labels, int64 [N], on `device`.

    Sets with masks give those, int64 [N, H, W], VOID included, in place of labels; without augmentation they
    are the whole images, one a batch where sizes differ. The order depends on (seed, epoch), the augmentation
    on (seed, epoch, batch) and for files and masks on (seed, epoch, place of the image in the set). Starting
    at `first_batch` therefore gives, bit for bit, what the undisturbed epoch gives from there on, on any
    device and, for files, with any number of workers. Tensors are augmented where they are held: move them to
    the device first. `num_workers` counts for files only. `part` = (d, D) gives the d-th of D consecutive
    shares of every batch, as the whole batch would have it.

    Errors:
        BadConfiguration: a batch size below 1, a first batch outside the epoch, an augmentation of the other
            kind, images with masks to train on that have neither a common size nor a crop. BadData: a file
            that cannot be read; the message names it. NotYetSupported: a share of a batch of files is empty.
    """
    total = num_batches(split, batch_size=batch_size, augmentation=augmentation)
    if not 0 <= first_batch <= total:
        raise BadConfiguration("first batch is outside the epoch", got=first_batch, allowed=f"0 to {total}")
    order = torch.arange(len(split))
    if shuffle:
        order = torch.randperm(len(split), generator=counter_generator("order", seed, epoch))
    sizes = batch_sizes(split, batch_size=batch_size, augmentation=augmentation)
    chosen = list(torch.split(order, list(sizes)))[first_batch:]
    variation = _checked(split, augmentation)
    fill = tuple(round(255 * value) for value in mean)
    plan, device = Plan(variation, seed, epoch, first_batch, chosen, part, fill), torch.device(device)
    if isinstance(split, ImageFiles | MaskFiles) and min(map(len, plan.shares), default=1) < 1:
        raise NotYetSupported(
            "a batch of files has fewer images than processes that share it",
            got=f"{min(sizes)} and {part[1]}",
            remedy="use one process; images of different sizes can get one by image_size",
        )
    raw = _raw(split, plan, num_workers, pinned=device.type == "cuda")
    return (
        (normalize(to_device(images, device), mean, std), to_device(targets, device).to(torch.int64))
        for images, targets in raw
    )


def _checked(split: Images, augmentation: Variation) -> Variation:
    """The augmentation that this kind of images takes."""
    if isinstance(split, MaskTensors | MaskFiles):
        return joint(split, augmentation)
    if isinstance(augmentation, JointAugmentation):
        raise BadConfiguration("this augmentation is for images with masks", got=augmentation)
    return augmentation


def _raw(split: Images, plan: Plan, num_workers: int, *, pinned: bool) -> Iterator[tuple[Tensor, Tensor]]:
    if isinstance(split, ImageTensors):
        return _from_tensors(split, plan)
    if isinstance(split, MaskTensors):
        return pairs_from_tensors(split, plan)
    reader = PairReader(split, plan) if isinstance(split, MaskFiles) else _FileReader(split, plan)
    return _from_files(reader, plan, num_workers, pinned=pinned)


def _from_tensors(split: ImageTensors, plan: Plan) -> Iterator[tuple[Tensor, Tensor]]:
    for batch, chosen in enumerate(plan.chosen, start=plan.first_batch):
        here = to_device(chosen, split.images.device)
        images = split.images.index_select(0, here)  # on a CPU ten times as fast as split.images[here]
        if isinstance(plan.augmentation, Augmentation):
            # whole: it draws for the whole batch
            images = augment(images, plan.augmentation, plan.generator(batch))
        wanted = share(len(here), *plan.part)
        yield images[wanted], split.labels[here[wanted]]


def _from_files(
    reader: Dataset[Any], plan: Plan, num_workers: int, *, pinned: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    loader: DataLoader[Any] = DataLoader(
        reader,
        batch_sampler=[chosen.tolist() for chosen in plan.shares],
        num_workers=num_workers,
        collate_fn=_stack,
        pin_memory=pinned,  # in a thread of the loader's
        worker_init_fn=_leave_signals_to_parent,
        generator=torch.Generator(),  # else the loader draws from, and so moves, the global random stream
    )
    for batch in loader:
        if isinstance(batch, BadData):
            raise batch
        yield batch


def _leave_signals_to_parent(worker: int) -> None:
    """Signals to a whole group, as of Ctrl-C or a batch system, are wishes that the training loop grants.

    A worker that died of one would end the run with an error. It ends when its loader does, or its parent.
    """
    for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
        if hasattr(signal, name):  # Windows has no SIGUSR1
            signal.signal(getattr(signal, name), signal.SIG_IGN)


class _FileReader(Dataset[tuple[Tensor, int] | BadData]):
    def __init__(self, split: ImageFiles, plan: Plan) -> None:
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
        if not isinstance(augmentation, Augmentation):
            return central_crop(path, size)
        generator = self.plan.generator(index)
        if augmentation.random_resized_crop:
            pixels = random_crop(path, size, generator)
        else:
            pixels = central_crop(path, size)
        return augment(pixels[None], replace(augmentation, random_resized_crop=False), generator)[0]


def _stack(samples: list[tuple[Tensor, Tensor | int] | BadData]) -> tuple[Tensor, Tensor] | BadData:
    good = []
    for sample in samples:
        if isinstance(sample, BadData):
            return sample
        good.append(sample)
    images_NHWC = torch.stack([image.permute(1, 2, 0) for image, _ in good])  # as they lie in memory
    return images_NHWC.permute(0, 3, 1, 2), torch.stack([torch.as_tensor(target) for _, target in good])
