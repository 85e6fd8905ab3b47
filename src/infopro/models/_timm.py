"""timm's classifiers."""

from __future__ import annotations

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

PREFIX = "timm/"
EXTRA = "vision"


def names() -> list[str]:
    return list(import_library("timm").list_models())


def has(name: str) -> bool:
    """A tag of pretrained weights may follow: `resnet50.a1_in1k`."""
    return bool(import_library("timm").is_model(name))


def requirement(name: str) -> InputRequirement:
    import_library("timm")
    from timm.models import get_pretrained_cfg

    with clear_build_errors(PREFIX + name):  # an unknown tag
        config = get_pretrained_cfg(name)
    if config is None:  # a network without any published weights says nothing about its input
        return InputRequirement(channels=None, image_size=None, smallest=1, fixed=False)
    smallest = config.min_input_size[-1] if config.min_input_size else 1
    fixed = bool(config.fixed_input_size)
    return InputRequirement(channels=None, image_size=config.input_size[-1], smallest=smallest, fixed=fixed)


def construction(
    name: str, *, num_classes: int, in_channels: int, image_size: ImageSize | None
) -> Construction:
    options: dict[str, object] = {"num_classes": num_classes, "in_chans": in_channels}
    if image_size is not None and requirement(name).fixed:
        options["img_size"] = image_size
    return Construction("timm", "timm.create_model", (name,), options)


def build(
    name: str, *, num_classes: int, in_channels: int, image_size: ImageSize | None, pretrained: bool
) -> nn.Module:
    timm = import_library("timm")
    call = construction(name, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    guard = clear_download_errors if pretrained else clear_build_errors
    with guard(PREFIX + name):
        model: nn.Module = timm.create_model(*call.arguments, pretrained=pretrained, **call.options)
    return model
