"""A few test images of a run on masks: truth, prediction, and what each module's own nets make of them."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from infopro.analysis import frozen_features
from infopro.data import VOID
from infopro.errors import BadInput, BadRun
from infopro.recipes._session import Session
from infopro.training.evaluation import evaluation_mode
from infopro.training.reading import plain_batches

__all__ = ["MaskExamples", "mask_examples", "middle_images", "read_mask_examples", "write_mask_examples"]

_FILE = "examples.npz"
_SHOWN = 6
_MOST_PIXELS = 480  # a side, as stored

Pictures = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskExamples:
    """Middles of test images, as large as the training images; masks hold classes, or 255 for void."""

    images: Pictures  # [n, H, W, 3]
    truth: Pictures  # [n, H, W]
    predictions: Mapping[str, Pictures]  # by "network" or "module 1", each [n, H, W]
    reconstructions: Mapping[str, Pictures] = field(default_factory=dict)  # by module, each [n, H, W, 3]


def write_mask_examples(session: Session, folder: Path) -> None:
    """Leave them in a run's folder, where the network is whole in this process; else nothing."""
    if not session.data.has_masks or session.processes is not None:
        return
    found = mask_examples(session)
    arrays: dict[str, Pictures] = {"images": found.images, "truth": found.truth}
    arrays |= {f"prediction/{name}": masks for name, masks in found.predictions.items()}
    arrays |= {f"reconstruction/{name}": images for name, images in found.reconstructions.items()}
    partial = folder / f".{_FILE}.partial"
    with partial.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
    os.replace(partial, folder / _FILE)


def read_mask_examples(folder: Path) -> MaskExamples | None:
    """Those of a run's folder; None where it has none.

    Raises:
        BadRun: the file is damaged.
    """
    file = folder / _FILE
    if not file.exists():
        return None
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            content = dict(stored)
        return MaskExamples(
            images=content["images"],
            truth=content["truth"],
            predictions=_named(content, "prediction/"),
            reconstructions=_named(content, "reconstruction/"),
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BadRun(f"{file} is damaged", got=error, remedy="delete it") from error


def mask_examples(session: Session) -> MaskExamples:
    """What the network, and each module's own head and decoder, make of a few test images."""
    local, task = session.local, session.local.task
    images, truth = middle_images(session)
    predictions: dict[str, Tensor] = {}
    reconstructions: dict[str, Tensor] = {}
    with torch.no_grad(), evaluation_mode(local):
        predictions["network"] = _classes(task.logits(local.model(images)), truth)
        with frozen_features(local.model, local.split.cuts) as features_of:
            features = features_of(images)
        for number, (stage, cut) in enumerate(zip(local.stages, local.split.cuts, strict=False), start=1):
            logits = _own_logits(stage.heads, features[cut], task.out_features)
            if logits is not None:
                predictions[f"module {number}"] = _classes(logits, truth)
            if "reconstruction" in stage.heads:
                reconstructions[f"module {number}"] = stage.heads["reconstruction"](features[cut])
    return MaskExamples(
        images=_stored(task.to_unit(images)),
        truth=_stored_masks(truth),
        predictions={name: _stored_masks(masks) for name, masks in predictions.items()},
        reconstructions={name: _stored(drawn) for name, drawn in reconstructions.items()},
    )


def _own_logits(heads: torch.nn.ModuleDict, features: Tensor, num_classes: int) -> Tensor | None:
    """Of a head that predicts classes; a projection, of another number of channels, predicts none."""
    if "task" not in heads:
        return None
    logits: Tensor = heads["task"](features)
    return logits if logits.dim() == 4 and logits.shape[1] == num_classes else None


def middle_images(session: Session) -> tuple[Tensor, Tensor]:
    """Test images evenly spread over the set, cut to the middle of training's size, and their masks."""
    data, (_, height, width) = session.data, session.data.image_shape
    number = min(_SHOWN, len(data.test))
    places = torch.linspace(0, len(data.test) - 1, number).round().long()
    found = plain_batches(data.test.take(places), data, batch_size=1, device=session.device)
    pairs = [_middle(images, masks, height, width) for images, masks in found]
    return torch.cat([images for images, _ in pairs]), torch.cat([masks for _, masks in pairs])


def _middle(images: Tensor, masks: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """[1, C, H, W] and [1, H, W], padded with the mean colour, which is 0 here, and with void."""
    down, right = max(0, height - images.shape[2]), max(0, width - images.shape[3])
    padding = (right // 2, right - right // 2, down // 2, down - down // 2)
    images, masks = F.pad(images, padding), F.pad(masks, padding, value=VOID)
    top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
    box = (..., slice(top, top + height), slice(left, left + width))
    return images[box], masks[box]


def _classes(logits: Tensor, like: Tensor) -> Tensor:
    resized = F.interpolate(logits.float(), like.shape[1:], mode="bilinear", align_corners=False)
    return resized.argmax(dim=1)


def _stored(unit: Tensor) -> Pictures:
    """[N, C, H, W] in [0, 1] -> uint8 [N, H, W, 3], not too large."""
    if unit.shape[1] not in (1, 3):
        raise BadInput("images have neither 1 nor 3 channels", got=unit.shape[1])
    small = unit.float()[..., :: _step(unit), :: _step(unit)].expand(-1, 3, -1, -1)
    pixels: Pictures = (small * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return pixels


def _stored_masks(masks: Tensor) -> Pictures:
    found: Pictures = masks[..., :: _step(masks), :: _step(masks)].to(torch.uint8).cpu().numpy()
    return found


def _step(pictures: Tensor) -> int:
    return -(-max(pictures.shape[-2:]) // _MOST_PIXELS)


def _named(content: Mapping[str, Pictures], prefix: str) -> dict[str, Pictures]:
    def pairs() -> Iterator[tuple[str, Pictures]]:
        for name, array in content.items():
            if name.startswith(prefix):
                yield name.removeprefix(prefix), array

    return dict(pairs())
