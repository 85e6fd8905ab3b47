"""The task of a configuration: labels or masks, as its data have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infopro.data import ImageData
from infopro.errors import BadConfiguration
from infopro.recipes._config import RunConfig
from infopro.tasks import Classification, HardPixels, Segmentation, Task

__all__ = ["make_task", "require_read"]

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
