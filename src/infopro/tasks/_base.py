"""What a task is: how a network's output is read, judged and checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from infopro.errors import BadConfiguration, BadInput

__all__ = ["Task"]

OUTSIDE = 0.01  # how far beyond [0, 1] rounding may carry a pixel
MOST_OUTSIDE = 0.1  # share of pixels; random erasing may fill some with noise


class Task(nn.Module, ABC):
    """Holds no parameters and nothing that is saved: a batch's loss, metric, checks and input normalisation.

    Args:
        out_features: numbers per image that a task head predicts.
        mean: per image channel, subtracted from the input in [0, 1]; one value serves every channel.
        std: per image channel, what the difference was divided by.

    Raises:
        BadConfiguration: `mean` and `std` of different lengths, or a `std` that is not positive.
    """

    dense: ClassVar[bool] = False  # whether there is a prediction for every pixel
    num_counts: int  # numbers that `counts` gives
    mean: Tensor
    std: Tensor

    def __init__(self, *, out_features: int, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        _check_normalisation(mean, std)
        self.out_features = out_features
        # the caller's model is what gets saved: buffers only so that they follow it from device to device
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)

    @abstractmethod
    def loss(self, output: Any, targets: Tensor) -> Tensor:
        """The scalar to minimise, of a network's or a task head's output; in at least float32."""

    @abstractmethod
    def logits(self, output: Any) -> Tensor:
        """The prediction inside whatever structure a network returns."""

    @abstractmethod
    def counts(self, output: Any, targets: Tensor) -> Tensor:
        """What a metric is made of, float64 [num_counts]: adds up over batches and over processes.

        It reads no value, so that no device is waited for.
        """

    @abstractmethod
    def error(self, counts: Sequence[float]) -> float:
        """The metric that is as small as it can be, in %, of counts that were added up."""

    def scores(self, counts: Sequence[float]) -> dict[str, Any]:
        """Further metrics, for the log: plain numbers, or lists of them."""
        return {}

    @abstractmethod
    def check(self, images: Tensor, targets: Tensor) -> None:
        """Raises BadInput where a batch cannot be trained on; reads values, so it waits for the device."""

    @abstractmethod
    def check_output(self, output: Any) -> None:
        """Raises BadInput where a network's output is not what this task expects."""

    def made_up_targets(self, images: Tensor) -> Tensor:
        """Targets to try a step with, all of class 0: one per image, [N], or of a dense task per pixel."""
        shape = (images.shape[0], *images.shape[2:]) if self.dense else images.shape[:1]
        return torch.zeros(shape, dtype=torch.int64, device=images.device)

    def to_unit(self, images: Tensor) -> Tensor:
        """The images with their normalisation undone, in [0, 1]: what the decoders reconstruct.

        Shapes:
            [N, C, ...] -> the same. What rounding, or noise painted over an image, leaves outside is clamped.
        """
        return self._denormalise(images).clamp(0.0, 1.0)

    def check_unit_range(self, images: Tensor) -> None:
        """Raises BadInput where `mean` and `std` are evidently not what the images were normalised with."""
        unit = self._denormalise(images)
        outside = ((unit < -OUTSIDE) | (unit > 1 + OUTSIDE)).float().mean().item()
        if outside > MOST_OUTSIDE:
            raise BadInput(
                "images cannot be reconstructed: with mean and std undone they leave [0, 1]",
                got=f"{outside:.0%} of the pixels outside, range {unit.min():.3g} to {unit.max():.3g}",
                allowed="the mean and std that the input was normalised with",
                remedy=f"give them to the task: {type(self).__name__}(..., mean=(...), std=(...))",
            )

    def _denormalise(self, images: Tensor) -> Tensor:
        per_channel = (-1, *[1] * (images.ndim - 2))
        return images * self.std.view(per_channel) + self.mean.view(per_channel)


def _check_normalisation(mean: Sequence[float], std: Sequence[float]) -> None:
    if len(mean) != len(std) or not mean:
        raise BadConfiguration(
            "mean and std need one value per image channel, or one for all",
            got=f"{len(mean)} and {len(std)} values",
        )
    if min(std) <= 0:
        raise BadConfiguration("std is what the input was divided by", got=tuple(std), allowed="above 0")
