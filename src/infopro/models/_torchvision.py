"""torchvision's classifiers."""

from __future__ import annotations

from typing import Any

from torch import nn

from infopro.errors import BadConfiguration
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

# builders that fix the image size take it as a keyword, by the name's first word
_SIZE_KEYWORD = {"vit": "image_size", "maxvit": "input_size"}
# auxiliary classifiers off: a local module has its own; init_weights only silences a warning
_OPTIONS: dict[str, dict[str, Any]] = {
    name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")
}


def names() -> list[str]:
    models = import_library("torchvision").models
    return list(models.list_models(module=models))  # this module alone: no detection, video


def has(name: str) -> bool:
    return name in names()


def requirement(name: str) -> InputRequirement:
    weights = import_library("torchvision").models.get_model_weights(name).DEFAULT
    fixed = _family(name) in _SIZE_KEYWORD
    # of a Swin, `min_size` is the size in training: it pads any other
    smallest = 1 if fixed or _family(name) == "swin" else max(weights.meta["min_size"])
    size = weights.transforms.keywords["crop_size"]
    return InputRequirement(channels=3, image_size=size, smallest=smallest, fixed=fixed)


def construction(
    name: str, *, num_classes: int, in_channels: int, image_size: ImageSize | None
) -> Construction:
    options = {"num_classes": num_classes, **_OPTIONS.get(name, {}), **_size_option(name, image_size)}
    return Construction("torchvision", "torchvision.models.get_model", (name,), {"weights": None, **options})


def build(
    name: str, *, num_classes: int, in_channels: int, image_size: ImageSize | None, pretrained: bool
) -> nn.Module:
    models = import_library("torchvision").models
    call = construction(name, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    with clear_build_errors(PREFIX + name):
        model: nn.Module = models.get_model(*call.arguments, **call.options)
    if pretrained:
        with clear_download_errors(PREFIX + name):
            _load_pretrained(model, models.get_model_weights(name).DEFAULT)
    return model


def _size_option(name: str, image_size: ImageSize | None) -> dict[str, Any]:
    keyword = _SIZE_KEYWORD.get(_family(name))
    if keyword is None or image_size is None:
        return {}
    if image_size[0] != image_size[1]:
        raise BadConfiguration(
            f"{PREFIX}{name} takes square images",
            got=f"{image_size[0]}x{image_size[1]}",
            remedy="change image_size, or take a timm/ network",
        )
    return {keyword: image_size[0] if keyword == "image_size" else image_size}


def _load_pretrained(model: nn.Module, weights: Any) -> None:
    """Load all weights but those whose shape differs: a classifier of another number of classes stays new."""
    own = model.state_dict()
    published = weights.get_state_dict(progress=True, check_hash=True)
    fitting = {key: value for key, value in published.items() if key in own and value.shape == own[key].shape}
    model.load_state_dict(own | fitting)


def _family(name: str) -> str:
    return name.partition("_")[0]
