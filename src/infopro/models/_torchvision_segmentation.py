"""torchvision's segmentation networks, with the auxiliary FCN head where they have one."""

from __future__ import annotations

from typing import Any

from torch import nn

from infopro.models._registry import (
    Construction,
    ImageSize,
    InputRequirement,
    clear_build_errors,
    clear_download_errors,
    import_library,
)

__all__ = ["EXTRA", "PREFIX", "build", "construction", "has", "names", "requirement"]

PREFIX = "torchvision/"
EXTRA = "vision"
_WITHOUT_AUXILIARY = ("lraspp",)  # the name's first word


def names() -> list[str]:
    models = import_library("torchvision").models
    return list(models.list_models(module=models.segmentation))


def has(name: str) -> bool:
    return name in names()


def requirement(name: str) -> InputRequirement:
    weights = import_library("torchvision").models.get_model_weights(name).DEFAULT
    size = weights.transforms.keywords["resize_size"]
    smallest = max(weights.meta["min_size"])
    return InputRequirement(channels=3, image_size=size, smallest=smallest, fixed=False, dense=True)


def construction(
    name: str, *, num_classes: int, in_channels: int, image_size: ImageSize | None
) -> Construction:
    options: dict[str, Any] = {"weights": None, "weights_backbone": None, "num_classes": num_classes}
    if not name.startswith(_WITHOUT_AUXILIARY):
        options["aux_loss"] = True
    return Construction("torchvision", "torchvision.models.get_model", (name,), options)


def build(
    name: str, *, num_classes: int, in_channels: int, image_size: ImageSize | None, pretrained: bool
) -> nn.Module:
    """Pretrained is the backbone: on ImageNet, by torchvision's own choice of weights."""
    call = construction(name, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    options = dict(call.options)
    if pretrained:
        del options["weights_backbone"]
    models = import_library("torchvision").models
    guard = clear_download_errors if pretrained else clear_build_errors
    with guard(PREFIX + name):
        model: nn.Module = models.get_model(name, **options)
    return model
