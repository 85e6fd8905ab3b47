"""The task of a configuration: labels or masks, as its data have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from infopro import models
from infopro.data import VOID, ImageData, MaskFiles, MaskTensors
from infopro.data._mask_batches import joint
from infopro.errors import BadConfiguration, BadData
from infopro.recipes._config import RunConfig
from infopro.tasks import Classification, HardPixels, Segmentation, Task

__all__ = ["make_task", "make_testable", "require_read"]

_OF_MASKS = ("class_weights", "hard_pixels", "crop", "scale")
_LEAST_HARD = 16  # at least one in so many pixels of a batch is trained on


def make_task(
    config: RunConfig,
    *,
    num_classes: int,
    has_masks: bool,
    image_shape: Sequence[int],
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
) -> Task:
    """What the configuration's network is to predict, and how that is judged.

    Raises:
        BadConfiguration: not one class weight per class.
    """
    common: dict[str, Any] = {"num_classes": num_classes, "mean": mean, "std": std}
    if config.auxiliary_weight is not None:
        common["auxiliary_weight"] = config.auxiliary_weight
    if not has_masks:
        return Classification(**common)
    hard = None
    if config.hard_pixels is not None:
        pixels = config.batch_size * image_shape[1] * image_shape[2]
        hard = HardPixels(threshold=config.hard_pixels, least=-(-pixels // _LEAST_HARD))
    return Segmentation(**common, class_weights=config.class_weights, hard_pixels=hard)


def require_read(config: RunConfig, data: ImageData) -> None:
    """Refuse options that the kind of the data leaves unread, and ways to run that masks do not have.

    Raises:
        BadConfiguration: the first of them.
    """
    if not data.has_masks:
        given = [name for name in _OF_MASKS if getattr(config, name) is not None]
        if given:
            raise BadConfiguration(
                f"{given[0]} is for data with masks",
                got=f"{data.name}, which has labels",
                remedy=f"leave {', '.join(given)} out, or name other data",
            )
        return
    if config.parallel in ("cached", "decoupled"):
        raise BadConfiguration(
            "masks are not learnt in this way",
            got=f"parallel {config.parallel!r}",
            allowed="none, pipeline, data",
        )
    if config.parallel == "pipeline" and config.crop is not None:
        raise BadConfiguration(
            "a pipeline tests on images of the size that it is trained on",
            got=f"crop {config.crop}",
            remedy="take parallel data or none, or image_size instead of crop",
        )


def make_testable(config: RunConfig, data: ImageData) -> ImageData:
    """The same data; masks' test images will be padded to sides that the configuration's network takes.

    Raises:
        BadConfiguration: training images of several sizes without a crop; a network built for one size, or a
            pipeline, and test images of another.
        BadData: masks without any class, as far as they are decoded already.
    """
    train, test = data.train, data.test
    if not (isinstance(train, MaskTensors | MaskFiles) and isinstance(test, MaskTensors | MaskFiles)):
        return data
    _refuse_void(data)
    joint(train, data.augmentation)
    needs, size = models.required_input(config.model), data.image_shape[1:]
    if (needs.fixed or config.parallel == "pipeline") and test.common_size != size:
        of_test = "several sizes" if test.common_size is None else _sides(test.common_size)
        raise BadConfiguration(
            f"{config.model if needs.fixed else 'a pipeline'} is tested on images of the size that it is "
            "trained on",
            got=f"{_sides(size)} in training, test images of {of_test}",
            remedy="bring all images to one size by image_size, without crop",
        )
    return replace(data, multiple_of=needs.multiple_of, smallest=needs.smallest)


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _refuse_void(data: ImageData) -> None:
    parts = {"training": data.train, "test": data.test}
    void = [
        name
        for name, part in parts.items()
        if isinstance(part, MaskTensors) and len(part) and bool((part.masks == VOID).all())
    ]
    if void:
        raise BadData(
            f"no pixel of the {' and the '.join(void)} images of {data.name} has a class",
            got=f"masks of {VOID} (void) only",
            remedy="label some, or take more images",
        )
