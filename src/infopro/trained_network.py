"""A run's network and what it takes to feed it, without the run's data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from infopro import data, models
from infopro.errors import BadRun
from infopro.memory import PRECISIONS
from infopro.models import InputRequirement
from infopro.prediction import default_colours
from infopro.recipes import RunConfig, from_plain
from infopro.tasks import Classification, Segmentation, Task
from infopro.training import RunFolder, load_model

__all__ = ["TrainedNetwork", "load_network"]

_RECORDED = ("image_shape", "num_classes", "class_names", "mean", "std", "has_masks")


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedNetwork:
    """A network with the weights of a run's checkpoint, on its device."""

    model: nn.Module
    task: Task
    needs: InputRequirement
    image_shape: tuple[int, int, int]  # C, H, W that it was trained on
    class_names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]  # of the classes
    crops: bool  # whether test images of the run were the middle of theirs, as image folders have them
    size: tuple[int, int] | None  # rows, columns that the run brought all images to
    crop: tuple[int, int] | None  # rows, columns of its training crops with masks
    precision: torch.dtype
    device: torch.device
    origin: Mapping[str, Any]  # run, checkpoint, epoch

    @property
    def title(self) -> str:
        """Which run, and how far it had come."""
        return f"{self.origin['run']}, epoch {self.origin['epoch']}"


def load_network(path: Path, *, device: torch.device, best: bool = False) -> TrainedNetwork:
    """The network of a run's last checkpoint, from the run's folder alone.

    Random streams are left as they were.

    Args:
        best: the checkpoint of the epoch with the best test result instead.

    Raises:
        BadRun: no such folder, no run in it, no checkpoint yet, a damaged one, or a run that did not record
            its classes and normalisation.

    Example:
        >>> load_network(Path("nowhere"), device=torch.device("cpu"))
        Traceback (most recent call last):
        infopro.errors.BadRun: the run folder does not exist: got nowhere; pass the folder that infopro ...
    """
    folder = RunFolder.open(path)
    checkpoint = folder.best_checkpoint() if best else folder.last_checkpoint()
    record = _complete(folder)
    config, shape = from_plain(folder.configuration), tuple(record["image_shape"])
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model = models.create(
            config.model, num_classes=record["num_classes"], in_channels=shape[0], image_size=shape[1:]
        )
    model = model.to(device).to(memory_format=torch.channels_last)  # as it was trained
    state = load_model(checkpoint, model)
    colours = tuple((int(red), int(green), int(blue)) for red, green, blue in record.get("colours") or ())
    return TrainedNetwork(
        model=model,
        task=_task(record).to(device),
        needs=models.required_input(config.model),
        image_shape=shape,
        class_names=tuple(record["class_names"]),
        colours=colours or default_colours(record["num_classes"]),
        crops=_crops(config),
        size=_size(config),
        crop=config.crop,
        precision=PRECISIONS[config.precision],
        device=device,
        origin={"run": str(path), "checkpoint": state.name, "epoch": state.epoch},
    )


def _complete(folder: RunFolder) -> dict[str, Any]:
    record = folder.record
    missing = [name for name in _RECORDED if name not in record]
    if missing:
        raise BadRun(
            f"{folder.path / 'run.json'} does not say how to feed the network",
            got=f"no {', '.join(missing)}",
            remedy="it is of an earlier version: train the run anew",
        )
    return record


def _task(record: Mapping[str, Any]) -> Task:
    kind = Segmentation if record["has_masks"] else Classification
    return kind(num_classes=record["num_classes"], mean=record["mean"], std=record["std"])


def _crops(config: RunConfig) -> bool:
    """Of folders the middle is cut out; sets that are known by name and .npz files are resized."""
    return config.data not in data.list_data() and not config.data.lower().endswith(".npz")


def _size(config: RunConfig) -> tuple[int, int] | None:
    size = config.image_size
    return (size, size) if isinstance(size, int) else size
