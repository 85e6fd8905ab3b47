"""Auxiliary nets, built from a feature's shape by rule; a new one is one new file.

A public file of this package declares `TASK_HEADS` and / or `DECODERS`: builders by name. For dense tasks a
task head takes its fully convolutional form; `DENSE_TASK_HEADS` has those that are for dense tasks only, or
that are built in another way before they take that form.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from infopro._plugins import public_modules
from infopro.errors import BadConfiguration, UnknownName
from infopro.heads._base import Decoder, DecoderBuilder, Head, TaskHeadBuilder, at_least_float32
from infopro.heads._dense import check_positions, fully_convolutional
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
    name: str,
    *,
    feature_shape: Sequence[int],
    image_shape: Sequence[int],
    out_features: int,
    dense: bool = False,
) -> Head:
    """A net that predicts from a module's features, for the image or for every position of its map.

    The dense form of a head does at every position what the head does to the pooled map: global pooling and
    flattening fall away, linear layers become 1x1 convolutions (Long et al., CVPR 2015). Strides and other
    pooling reduce the map down to an eighth of the image's side and no further.

    Args:
        name: one of `list_task_heads()`, or "auto": "1c2f" for image sides up to 96, "imagenet" above; for a
            dense task "fcn".
        feature_shape: [C, H, W], [H, W, C], [T, C] or [C]; without the batch dimension.
        image_shape: [C, H, W] of the network's input; without the batch dimension.
        out_features: classes, or the size of a projection.
        dense: predict [N, out_features, h, w] in place of [N, out_features].

    Raises:
        UnknownName: no file of this package declares such a head.
        BadConfiguration: "fcn" without `dense`; `dense` where the network's input is not an image.
        NotYetSupported: features of more than three dimensions; `dense` for tokens that are no grid.

    Example:
        >>> from infopro.heads import task_head
        >>> head = task_head("1c2f", feature_shape=(16, 32, 32), image_shape=(3, 32, 32), out_features=10)
        >>> head.layers[0].weight.shape
        torch.Size([32, 16, 3, 3])
    """
    check_task_head_name(name)
    shapes = {"feature_shape": tuple(feature_shape), "image_shape": tuple(image_shape)}
    if dense:
        check_positions(**shapes)
        builder = (_task_heads() | _dense_task_heads())["fcn" if name == "auto" else name]
        return fully_convolutional(builder(**shapes, out_features=out_features), **shapes)
    chosen = _for_size(image_shape, small="1c2f", large="imagenet") if name == "auto" else name
    if chosen not in _task_heads():
        raise BadConfiguration(
            "this task head predicts for every position: it is for dense tasks",
            got=repr(name),
            allowed=", ".join(["auto", *_task_heads()]),
        )
    return _task_heads()[chosen](**shapes, out_features=out_features)


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


def list_task_heads(*, dense: bool = True) -> list[str]:
    """Names of the task heads, in order; without `dense` those only that can predict for a whole image."""
    return sorted(_task_heads() | _dense_task_heads()) if dense else list(_task_heads())


def list_decoders() -> list[str]:
    """Names of the decoders, in order."""
    return list(_decoders())


def check_task_head_name(name: str) -> None:
    """Raises UnknownName, which lists the near ones, for a task head that does not exist."""
    if name not in ("auto", *list_task_heads()):
        raise UnknownName("task head", name, ["auto", *list_task_heads()])


def check_decoder_name(name: str) -> None:
    """Raises UnknownName, which lists the near ones, for a decoder that does not exist."""
    if name not in ("auto", *_decoders()):
        raise UnknownName("decoder", name, ["auto", *_decoders()])


def _for_size(image_shape: Sequence[int], *, small: str, large: str) -> str:
    longest = max(image_shape[1:]) if len(image_shape) == 3 else 0
    return small if longest <= LARGEST_SMALL_IMAGE else large


@cache
def _task_heads() -> dict[str, TaskHeadBuilder]:
    return _declared("TASK_HEADS")


@cache
def _dense_task_heads() -> dict[str, TaskHeadBuilder]:
    return _declared("DENSE_TASK_HEADS")


@cache
def _decoders() -> dict[str, DecoderBuilder]:
    return _declared("DECODERS")


def _declared(table: str) -> dict[str, Any]:
    builders: dict[str, Any] = {}
    for file, module in public_modules(__name__, list(__path__)).items():
        found = getattr(module, table, {})
        assert not builders.keys() & found.keys(), f"{file}.py declares a name of {table} for the second time"
        builders |= found
    return dict(sorted(builders.items()))
