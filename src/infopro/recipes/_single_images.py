"""Batches of one image: some networks cannot be trained on them, and several processes cannot share them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from infopro.data import ImageData, MaskFiles, batch_sizes
from infopro.errors import BadConfiguration, NotYetSupported
from infopro.recipes._config import RunConfig

__all__ = ["refuse_single_images"]

_TORCH_SAYS = "more than 1 value per channel"  # BatchNorm, of one image whose map is one pixel


def refuse_single_images(
    config: RunConfig, model: nn.Module, data: ImageData, example: Tensor, *, replicas: int
) -> None:
    """Refuse a network that normalises one value per channel and image, where a process gets one image.

    A copy of the network tries it, so that neither its statistics nor a random stream move.

    Raises:
        BadConfiguration: the network cannot be trained on one image.
        NotYetSupported: several processes would test on images that are read one by one.
    """
    if replicas > 1 and isinstance(data.test, MaskFiles) and data.test.common_size is None:
        raise NotYetSupported(
            "test images of several sizes come one by one, and processes cannot share one",
            got=f"{replicas} processes",
            remedy="bring them to one size by image_size, or use one process",
        )
    sizes = batch_sizes(data.train, batch_size=config.batch_size, augmentation=data.augmentation)
    shared = config.synchronise_batch_norm and replicas > 1
    if shared or not sizes or min(sizes) // replicas > 1:
        return
    trial = copy.deepcopy(model).train()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[example.device] if example.is_cuda else []):
            trial(example[:1])
    except ValueError as error:
        if _TORCH_SAYS not in str(error):
            raise
        raise BadConfiguration(
            f"{config.model} cannot be trained on one image: it normalises one value per channel and image",
            got=f"{len(data.train)} training images, batch_size {config.batch_size}, processes {replicas}",
            allowed="two images or more for every process in every batch",
        ) from error
