"""The networks of segmentation_models_pytorch: an architecture and an encoder."""

from __future__ import annotations

import inspect
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from types import ModuleType
from typing import Any

from torch import nn

from infopro.models import _timm
from infopro.models._registry import (
    Construction,
    ImageSize,
    InputRequirement,
    clear_build_errors,
    clear_download_errors,
    import_library,
)

__all__ = ["EXTRA", "PREFIX", "build", "construction", "has", "names", "requirement"]

PREFIX = "smp/"
EXTRA = "seg"
_TIMM = "tu-"  # in front of an encoder of timm's
_TRANSFORMERS_ONLY = "dpt"  # the architecture that takes no other encoder than timm's vision transformers
# patterns of what smp cannot build: mix transformers begin at a quarter of the image's size, and encoders
# that shrink by pooling cannot be dilated
_REFUSED = (
    *("unetplusplus/mit_*", "linknet/mit_*"),
    *(
        f"{dilated}/{pooling}*"
        for dilated in ("deeplabv3", "deeplabv3plus", "pan")
        for pooling in ("vgg", "densenet", "inception", "xception")
    ),
)
_SMALLEST = {"pan/*": 128, "*/mit_*": 32}  # pixels; PAN halves the smallest map three times


def names() -> list[str]:
    smp = _library()
    listed = [
        f"{architecture}/{encoder}"
        for architecture in smp.MODEL_ARCHITECTURES_MAPPING
        if architecture != _TRANSFORMERS_ONLY
        for encoder in smp.encoders.get_encoder_names()
    ]
    possible = [name for name in listed if not any(fnmatchcase(name, pattern) for pattern in _REFUSED)]
    transformers = import_library("timm").list_models(module="vision_transformer")
    return [*possible, *(f"{_TRANSFORMERS_ONLY}/{_TIMM}{name}" for name in transformers)]


def has(name: str) -> bool:
    """Every architecture takes timm's encoders, too: `unet/tu-convnext_tiny`. Why a pair that is not listed
    cannot be, smp says best when it is built.
    """
    architecture, _, encoder = name.partition("/")
    if architecture not in _library().MODEL_ARCHITECTURES_MAPPING:
        return False
    if encoder.startswith(_TIMM):
        return _timm.has(encoder.removeprefix(_TIMM))
    return encoder in _library().encoders.get_encoder_names()


def requirement(name: str) -> InputRequirement:
    architecture, _, encoder = name.partition("/")
    stride = _stride(architecture)
    smallest = max([stride, *(side for pattern, side in _SMALLEST.items() if fnmatchcase(name, pattern))])
    needed = InputRequirement(
        channels=None, image_size=None, smallest=smallest, fixed=False, multiple_of=stride, dense=True
    )
    if not encoder.startswith(_TIMM):
        return needed
    theirs = _timm.requirement(encoder.removeprefix(_TIMM))
    return replace(
        needed,
        image_size=theirs.image_size if theirs.fixed else None,
        smallest=max(smallest, theirs.smallest),
        fixed=theirs.fixed,
    )


def construction(
    name: str, *, num_classes: int, in_channels: int, image_size: ImageSize | None
) -> Construction:
    architecture, _, encoder = name.partition("/")
    options: dict[str, Any] = {"encoder_weights": None, "in_channels": in_channels, "classes": num_classes}
    if image_size is not None and requirement(name).fixed:
        options["img_size"] = image_size  # smp hands it on to timm
    package = "segmentation_models_pytorch"
    return Construction(package, f"{package}.create_model", (architecture, encoder), options)


def build(
    name: str, *, num_classes: int, in_channels: int, image_size: ImageSize | None, pretrained: bool
) -> nn.Module:
    """Pretrained is the encoder: on ImageNet, or what is published in its place."""
    call = construction(name, num_classes=num_classes, in_channels=in_channels, image_size=image_size)
    architecture, encoder = call.arguments
    guard = clear_download_errors if pretrained else clear_build_errors
    with guard(PREFIX + name):
        options = {**call.options, "encoder_weights": _weights(encoder) if pretrained else None}
        model: nn.Module = _library().create_model(architecture, encoder, **options)
    return model


def _library() -> ModuleType:
    return import_library("segmentation_models_pytorch", names=f"{PREFIX}ARCHITECTURE/ENCODER")


@cache
def _stride(architecture: str) -> int:
    """What smp demands that an image's sides are divisible by: its size over that of the smallest map."""
    network = _library().MODEL_ARCHITECTURES_MAPPING[architecture]
    if architecture == _TRANSFORMERS_ONLY or not network.requires_divisible_input_shape:
        return 1
    parameters = inspect.signature(network.__init__).parameters
    dilated = parameters.get("encoder_output_stride")
    return int(min(2 ** parameters["encoder_depth"].default, dilated.default if dilated else 32))


def _weights(encoder: str) -> str | bool:
    """The name of an encoder's weights; those of timm's are part of the encoder's own name."""
    if encoder.startswith(_TIMM):
        return True
    published = list(_library().encoders.encoders[encoder]["pretrained_settings"])
    return "imagenet" if "imagenet" in published else str(published[0])
