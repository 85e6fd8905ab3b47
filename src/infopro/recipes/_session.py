"""From a configuration to a run: the parts, then a folder that fills."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from infopro import data as data_sets
from infopro import models
from infopro.data import ImageData
from infopro.engines import Engine, Processes
from infopro.errors import BadConfiguration
from infopro.local import LocalModel
from infopro.localization import localize
from infopro.recipes._config import RunConfig, build_objective, check
from infopro.recipes._stored import from_plain
from infopro.recipes._together import make_engine
from infopro.tasks import Classification
from infopro.training import (
    Checkpoint,
    Evaluation,
    RunFolder,
    evaluate_data,
    load_model,
    make_optimizer,
)

__all__ = ["PRECISIONS", "Session", "choose_device", "evaluate_run", "prepare", "prepare_data"]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Session:
    """All parts of a run, built and ready."""

    config: RunConfig
    local: LocalModel
    data: ImageData
    optimizer: torch.optim.Optimizer  # of what this process trains
    device: torch.device
    engine: Engine
    processes: Processes | None  # None: this one is alone


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the GPU where there is one, of several this process's own.

    Raises:
        BadConfiguration: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    usable = device is not None and device.type in ("cpu", "cuda")
    if device is None or not usable or (device.type == "cuda" and not torch.cuda.is_available()):
        allowed = "auto, cpu" + (
            ", cuda, cuda:0, ..." if torch.cuda.is_available() else " (this machine has no GPU)"
        )
        raise BadConfiguration("device is not usable", got=repr(name), allowed=allowed)
    return device


def prepare_data(
    config: RunConfig, *, data_dir: Path | None, download: bool, device: torch.device
) -> ImageData:
    """The configuration's data set; sets held as tensors are moved to the device.

    With `hold_out` no test image is read from it: what is held out of the training images, the same for every
    seed, stands in their place.
    """
    loaded = data_sets.load(config.data, data_dir=data_dir, download=download, image_size=config.image_size)
    if config.hold_out is not None:
        loaded = data_sets.hold_out(loaded, fraction=config.hold_out)
    limited = data_sets.limit(loaded, train=config.limit_train, test=config.limit_test)
    return replace(limited, train=limited.train.to(device), test=limited.test.to(device))


def prepare(
    config: RunConfig,
    data: ImageData,
    *,
    device: torch.device,
    processes: Processes | None = None,
    queue: int = 2,
    shard: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Session:
    """Network, split, objective, engine and optimizer; the same seed gives the same weights.

    Args:
        processes: those that share the work; this one, if not given.
        queue: batches that may be under way from one process to the next.
        shard: replicas share parameters and optimizer state out.
        stop: asked before every step; see `infopro.engines`.

    Raises:
        InfoProError: whatever does not fit together, before any training.
    """
    check(config)
    torch.manual_seed(config.seed)
    channels, height, _ = data.image_shape
    model = models.create(config.model, num_classes=data.num_classes, in_channels=channels, image_size=height)
    model.to(device).to(memory_format=torch.channels_last)
    example = torch.rand(4, *data.image_shape, generator=torch.Generator().manual_seed(0)).to(device)
    local = localize(
        model,
        example,
        num_modules=None if config.cuts is not None else config.num_modules,
        cuts=config.cuts,
        balance=config.balance if config.cuts is None else "depth",
        objective=build_objective(config),
        task=Classification(num_classes=data.num_classes, mean=data.mean, std=data.std),
        checkpoint=config.checkpoint,
    )
    if config.compile:
        _require_compiler(device)
        local.compile()
    engine = make_engine(config, local, example, processes=processes, queue=queue, shard=shard, stop=stop)
    optimizer = make_optimizer(
        config.optimizer,
        engine.parameters(),
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        nesterov=config.nesterov,
    )
    return Session(config, local, data, optimizer, device, engine, processes)


def _require_compiler(device: torch.device) -> None:
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise BadConfiguration(
            "compile needs a C++ compiler on a CPU",
            got=f"no {compiler}",
            remedy="install one, name it in CXX, or leave compile out",
        )


def evaluate_run(
    path: Path, *, data_dir: Path | None, download: bool, device: torch.device, num_workers: int = 0
) -> tuple[Checkpoint, Evaluation]:
    """Rebuild a run's network from its configuration and test its last checkpoint; no heads, no split."""
    folder = RunFolder.open(path)
    config = from_plain(folder.configuration)
    if data_dir is None and folder.record.get("data_dir"):
        data_dir = Path(folder.record["data_dir"])
    data = prepare_data(config, data_dir=data_dir, download=download, device=device)
    channels, height, _ = data.image_shape
    model = models.create(config.model, num_classes=data.num_classes, in_channels=channels, image_size=height)
    state = load_model(folder.last_checkpoint(), model)
    model.to(device).to(memory_format=torch.channels_last)
    task = Classification(num_classes=data.num_classes, mean=data.mean, std=data.std).to(device)
    precision = PRECISIONS[config.precision]
    return state, evaluate_data(
        model, task, data, device=device, precision=precision, num_workers=num_workers
    )
