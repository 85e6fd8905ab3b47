"""Batches of images with masks, each image varied by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.data import Dataset

from infopro.data._mask_reader import MaskReader
from infopro.data._mask_types import JointAugmentation, MaskFiles, MaskTensors
from infopro.data._plan import Plan
from infopro.data._transfer import to_device
from infopro.data._types import Augmentation
from infopro.data.joint_augment import augment_pair
from infopro.errors import BadConfiguration, BadData

__all__ = ["PairReader", "joint", "pairs_from_tensors"]


def joint(
    split: MaskTensors | MaskFiles, augmentation: Augmentation | JointAugmentation | None
) -> JointAugmentation | None:
    """The augmentation with a crop that gives all images one size; None for whole images as they are.

    Errors:
        BadConfiguration: an augmentation that would leave masks behind, no crop where sizes differ.
    """
    if augmentation is None:
        return None
    if not isinstance(augmentation, JointAugmentation):
        if augmentation != Augmentation():
            what = "this augmentation leaves masks behind"
            raise BadConfiguration(what, got=augmentation, allowed="JointAugmentation")
        augmentation = JointAugmentation()
    size = augmentation.crop or split.common_size
    if size is None:
        raise BadConfiguration(
            "training images have no common size",
            got="no crop",
            remedy="pass crop, such as 512 x 512, or image_size",
        )
    return replace(augmentation, crop=size) if augmentation.varies else None


def pairs_from_tensors(split: MaskTensors, plan: Plan) -> Iterator[tuple[Tensor, Tensor]]:
    for chosen in plan.shares:
        if not isinstance(plan.augmentation, JointAugmentation) or not len(chosen):
            here = to_device(chosen, split.images.device)
            yield split.images.index_select(0, here), split.masks.index_select(0, here)
            continue
        pairs = [_varied(split.images[i], split.masks[i], plan, i) for i in chosen.tolist()]
        yield torch.stack([image for image, _ in pairs]), torch.stack([mask for _, mask in pairs])


class PairReader(Dataset[tuple[Tensor, Tensor] | BadData]):
    """The pairs of one part of a data set, varied as planned."""

    def __init__(self, split: MaskFiles, plan: Plan) -> None:
        self.split = split
        self.plan = replace(plan, chosen=[])  # not copied to every worker
        self._reader: MaskReader | None = None  # each worker opens the archive itself

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor] | BadData:
        # returned, not raised: the loader would rewrite the message into a worker's traceback
        try:
            self._reader = self._reader or MaskReader(self.split)
            image, mask = self._reader.pair(index)
        except BadData as error:
            return error
        return _varied(image, mask, self.plan, index)


def _varied(image: Tensor, mask: Tensor, plan: Plan, index: int) -> tuple[Tensor, Tensor]:
    if not isinstance(plan.augmentation, JointAugmentation):
        return image, mask
    generator = plan.generator(index)
    return augment_pair(image, mask, plan.augmentation, fill=plan.fill, generator=generator)
