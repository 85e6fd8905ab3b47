"""The labels of images that have one each."""

from __future__ import annotations

from torch import Tensor

from infopro.data._types import ImageFiles, Images, ImageTensors
from infopro.errors import BadInput

__all__ = ["labels_of"]


def labels_of(images: Images) -> Tensor:
    """One class per image, int64 [N].

    Errors:
        BadInput: images with masks.
    """
    if isinstance(images, ImageTensors | ImageFiles):
        return images.labels
    raise BadInput("images have no labels", got=type(images).__name__, allowed="one class per image")
