"""Photos to their most probable classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from infopro.errors import BadConfiguration
from infopro.heads import at_least_float32
from infopro.prediction._arrays import as_batch
from infopro.tasks import Task
from infopro.training.evaluation import evaluation_mode

__all__ = ["ClassPrediction", "predict_classes"]


@dataclass(frozen=True)
class ClassPrediction:
    """The most probable classes of one image, the best first."""

    classes: tuple[int, ...]  # their numbers
    probabilities: tuple[float, ...]


@torch.no_grad()
def predict_classes(
    model: nn.Module, images: Sequence[NDArray[np.uint8]], *, task: Task, top: int = 5, batch_size: int = 64
) -> list[ClassPrediction]:
    """Classify images of the size that the network was trained on, on the network's device.

    Shapes: images [H, W, channels], all of one size.

    Args:
        task: with the mean and std that the network was trained with.
        top: classes an image; all of them, where there are fewer.

    Errors:
        BadInput: an image that is not uint8 [H, W, channels].
        BadConfiguration: `top` or `batch_size` below 1.

    Example:
        >>> import numpy as np, torch
        >>> from infopro.tasks import Classification
        >>> brightness = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> blue = np.full((8, 8, 3), (0, 51, 255), np.uint8)
        >>> predict_classes(brightness, [blue], task=Classification(num_classes=3), top=2)[0].classes
        (2, 1)
    """
    for name, value in (("top", top), ("batch_size", batch_size)):
        if value < 1:
            raise BadConfiguration(f"{name} is not positive", got=value, allowed="1 or more")
    found = []
    for first in range(0, len(images), batch_size):
        batch = as_batch(images[first : first + batch_size], model, task)
        with evaluation_mode(model):
            logits = at_least_float32(task.logits(model(batch)))
        best = logits.softmax(dim=1).topk(min(top, logits.shape[1]), dim=1)
        found += [
            ClassPrediction(tuple(classes), tuple(values))
            for classes, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
    return found
