"""On how much data blocks and gradients are compared: everything that the numbers depend on, as data."""

from __future__ import annotations

from dataclasses import dataclass

from infopro.errors import BadConfiguration

__all__ = ["ComparisonSettings"]


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """On how many images blocks and gradients are compared; stated beside the numbers.

    Raises:
        BadConfiguration: a number outside its range.
    """

    images: int = 2560  # test images for CKA, a class-balanced part
    batch_size: int = 256  # images of one term of minibatch CKA
    gradient_batches: int = 8  # of training images, without augmentation
    gradient_batch_size: int = 128
    seed: int = 0  # chooses the images, and is dropout's

    def __post_init__(self) -> None:
        least = {"images": 4, "batch_size": 4, "gradient_batches": 1, "gradient_batch_size": 2}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                got = getattr(self, name)
                raise BadConfiguration(f"{name} is too small", got=got, allowed=f"{lowest} or more")
