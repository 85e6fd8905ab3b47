"""Auxiliary nets, built from a feature's shape by rule; a new one is one new file.

A public file of this package declares `TASK_HEADS` and / or `DECODERS`: builders by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from infopro._plugins import public_modules
from infopro.errors import BadConfiguration, UnknownName
from infopro.heads._base import Decoder, DecoderBuilder, Head, TaskHeadBuilder, at_least_float32
from infopro.heads._features import SpatialLayout, ToFeatureMap, spatial_layout

__all__ = [
    "Decoder",
    "Head",
    "SpatialLayout",
    "ToFeatureMap",
    "at_least_float32",
    "check_decoder_name",
    "check_task_head_name",
    "decoder",
    "list_decoders",
    "list_task_heads",
    "spatial_layout",
    "task_head",
]

LARGEST_SMALL_IMAGE = 96  # longest side, pixels: STL-10, the largest images of the published CIFAR form


def task_head(
    name: str, *, feature_shape: Sequence[int], image_shape: Sequence[int], out_features: int
) -> Head:
    """A net that predicts from a module's features.

    Args:
        name: one of `list_task_heads()`, or "auto": "1c2f" for image sides up to 96, "imagenet" above.
        feature_shape: [C, H, W], [H, W, C], [T, C] or [C]; without the batch dimension.
        image_shape: [C, H, W] of the network's input; without the batch dimension.
        out_features: classes, or the size of a projection.

    Raises:
        UnknownName: no file of this package declares such a head.
        NotYetSupported: features of more than three dimensions.

    Example:
        >>> from infopro.heads import task_head
        >>> head = task_head("1c2f", feature_shape=(16, 32, 32), image_shape=(3, 32, 32), out_features=10)
        >>> head.layers[0].weight.shape
        torch.Size([32, 16, 3, 3])
    """
    check_task_head_name(name)
    chosen = _for_size(image_shape, small="1c2f", large="imagenet") if name == "auto" else name
    return _task_heads()[chosen](
        feature_shape=tuple(feature_shape), image_shape=tuple(image_shape), out_features=out_features
    )


def decoder(name: str, *, feature_shape: Sequence[int], image_shape: Sequence[int]) -> Decoder:
    """A net that reconstructs the image from a module's features: [N, C, H, W] as the image, in [0, 1].

    Args:
        name: one of `list_decoders()`, or "auto": "cifar" for image sides up to 96, "imagenet" above.
        feature_shape: [C, H, W], [H, W, C], [T, C] or [C]; without the batch dimension.
        image_shape: [C, H, W] of the network's input; without the batch dimension.

    Raises:
        UnknownName: no file of this package declares such a decoder.
        BadConfiguration: the network's input is not an image.
        NotYetSupported: features of more than three dimensions.

    Example:
        >>> import torch
        >>> from infopro.heads import decoder
        >>> net = decoder("auto", feature_shape=(16, 32, 32), image_shape=(3, 32, 32))
        >>> net(torch.zeros(2, 16, 32, 32)).shape
        torch.Size([2, 3, 32, 32])
    """
    check_decoder_name(name)
    if len(image_shape) != 3:
        raise BadConfiguration(
            "only images can be reconstructed",
            got=f"an input of shape {list(image_shape)}",
            allowed="[C, H, W]",
            remedy="choose an objective without a decoder: DGL, Greedy, InfoPro(reconstruction_weight=None)",
        )
    chosen = _for_size(image_shape, small="cifar", large="imagenet") if name == "auto" else name
    return _decoders()[chosen](feature_shape=tuple(feature_shape), image_shape=tuple(image_shape))


def list_task_heads() -> list[str]:
    """Names of the task heads, in order."""
    return list(_task_heads())


def list_decoders() -> list[str]:
    """Names of the decoders, in order."""
    return list(_decoders())


def check_task_head_name(name: str) -> None:
    """Raises UnknownName, which lists the near ones, for a task head that does not exist."""
    if name not in ("auto", *_task_heads()):
        raise UnknownName("task head", name, ["auto", *_task_heads()])


def check_decoder_name(name: str) -> None:
    """Raises UnknownName, which lists the near ones, for a decoder that does not exist."""
    if name not in ("auto", *_decoders()):
        raise UnknownName("decoder", name, ["auto", *_decoders()])


def _for_size(image_shape: Sequence[int], *, small: str, large: str) -> str:
    longest = max(image_shape[1:]) if len(image_shape) == 3 else 0
    return small if longest <= LARGEST_SMALL_IMAGE else large


@cache
def _task_heads() -> Mapping[str, TaskHeadBuilder]:
    return _declared("TASK_HEADS")


@cache
def _decoders() -> Mapping[str, DecoderBuilder]:
    return _declared("DECODERS")


def _declared(table: str) -> dict[str, Any]:
    builders: dict[str, Any] = {}
    for file, module in public_modules(__name__, list(__path__)).items():
        found = getattr(module, table, {})
        assert not builders.keys() & found.keys(), f"{file}.py declares a name of {table} for the second time"
        builders |= found
    return dict(sorted(builders.items()))
