"""Photos to a class for every pixel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from infopro.prediction._arrays import as_batch
from infopro.prediction.scales import Inference, probabilities
from infopro.tasks import Task

__all__ = ["SegmentationPrediction", "predict_segmentation"]


@dataclass(frozen=True, eq=False)
class SegmentationPrediction:
    """The most probable class of every pixel of one image."""

    mask: NDArray[np.uint8]  # [H, W], class numbers
    confidence: NDArray[np.float32]  # [H, W]: the probability of that class
    shares: tuple[float, ...]  # of the image's area, for every class


def predict_segmentation(
    model: nn.Module,
    images: Sequence[NDArray[np.uint8]],
    *,
    task: Task,
    inference: Inference | None = None,
) -> list[SegmentationPrediction]:
    """Segment images at their own sizes, on the network's device.

    Neighbours of one size go through the network together. For how images are looked at, see `Inference`.

    Shapes: images [H, W, channels], of any sizes.

    Args:
        task: with the mean and std that the network was trained with.

    Errors:
        BadInput: an image that is not uint8 [H, W, channels].

    Example:
        >>> import numpy as np, torch
        >>> from infopro.tasks import Segmentation
        >>> photo = np.zeros((4, 6, 3), np.uint8)
        >>> photo[:, 4:, 2] = 255
        >>> found, = predict_segmentation(torch.nn.Identity(), [photo], task=Segmentation(num_classes=3))
        >>> found.mask[0].tolist(), [round(share, 2) for share in found.shares]
        ([0, 0, 0, 0, 2, 2], [0.67, 0.0, 0.33])
    """
    inference = inference or Inference()
    found: list[SegmentationPrediction] = []
    for _, alike in groupby(images, key=lambda image: image.shape):
        for batch in _batches(list(alike), inference.batch_size):
            found += _predict(model, batch, task, inference)
    return found


def _batches(images: list[NDArray[np.uint8]], size: int) -> Iterator[list[NDArray[np.uint8]]]:
    return (images[first : first + size] for first in range(0, len(images), size))


def _predict(
    model: nn.Module, images: Sequence[NDArray[np.uint8]], task: Task, inference: Inference
) -> Iterator[SegmentationPrediction]:
    found = probabilities(model, as_batch(images, model, task), task=task, inference=inference)
    best = found.max(dim=1)
    for mask, confidence in zip(best.indices, best.values, strict=True):
        yield _prediction(mask, confidence, num_classes=found.shape[1])


def _prediction(mask: Tensor, confidence: Tensor, *, num_classes: int) -> SegmentationPrediction:
    numbers = mask.to(torch.uint8).cpu().numpy()
    counts = np.bincount(numbers.ravel(), minlength=num_classes)
    shares = tuple(float(count) / numbers.size for count in counts)
    return SegmentationPrediction(numbers, confidence.float().cpu().numpy(), shares)
