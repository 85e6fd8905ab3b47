"""From a configuration to a run: the parts, then a folder that fills."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from infopro import data as data_sets
from infopro import models
from infopro.data import ImageData
from infopro.engines import Engine, Processes
from infopro.errors import BadConfiguration
from infopro.local import LocalModel
from infopro.localization import localize
from infopro.memory import PRECISIONS
from infopro.prediction import Inference, evaluate_dense
from infopro.recipes._bad_images import skipped_before
from infopro.recipes._config import RunConfig, build_objective, check
from infopro.recipes._initial_weights import InitialWeights, find_initial_weights
from infopro.recipes._single_images import refuse_single_images
from infopro.recipes._stored import from_plain
from infopro.recipes._task import make_task, make_testable, require_read
from infopro.recipes._together import make_engine
from infopro.tasks import Task
from infopro.training import (
    Checkpoint,
    Evaluation,
    RunFolder,
    WeightAverages,
    evaluate_data,
    load_model,
    make_optimizer,
)
from infopro.training.evaluation import autocast
from infopro.training.reading import plain_batches

__all__ = [
    "Session",
    "choose_device",
    "evaluate_run",
    "example_images",
    "make_local",
    "make_network",
    "open_with_data",
    "prepare",
    "prepare_data",
    "task_of",
]


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
    averages: WeightAverages | None = None  # of the weights that this process holds
    until: int | None = None  # the epoch after which this session ends, though its schedule goes on
    initial_weights: InitialWeights | None = None  # of the network, where another run gave them

    @property
    def last_epoch(self) -> int:
        """That this session trains."""
        return min(self.config.epochs, self.until or self.config.epochs)


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
    config: RunConfig,
    *,
    data_dir: Path | None,
    download: bool,
    device: torch.device,
    skipped: Mapping[str, str] | None = None,
) -> ImageData:
    """The configuration's data set; sets held as tensors are moved to the device.

    With `hold_out` no test image is read from it: what is held out of the training images, the same for every
    seed, stands in their place. `skipped`: the unreadable files that the run has left out before.
    """
    loaded = data_sets.load(
        config.data,
        data_dir=data_dir,
        download=download,
        image_size=config.image_size,
        on_bad_image=config.on_bad_image,
        skipped=skipped,
    )
    if config.hold_out is not None:
        loaded = data_sets.hold_out(loaded, fraction=config.hold_out)
    limited = data_sets.limit(loaded, train=config.limit_train, test=config.limit_test)
    require_read(config, limited)
    models.check_targets(config.model, dense=limited.has_masks, data=limited.name)
    if config.crop is not None or config.scale is not None:
        limited = data_sets.crop(limited, size=config.crop, scale=config.scale)
    limited = make_testable(config, limited)
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
    until: int | None = None,
    resumed: bool = False,
) -> Session:
    """Network, split, objective, engine and optimizer; the same seed gives the same weights.

    Args:
        processes: those that share the work; this one, if not given.
        queue: batches that may be under way from one process to the next.
        shard: replicas share parameters and optimizer state out.
        stop: asked before every step; see `infopro.engines`.
        until: the last epoch to train now, of the schedule of all; for the exact modes.
        resumed: a checkpoint of the run itself follows: no other run's weights are looked for.

    Raises:
        InfoProError: whatever does not fit together, before any training.
    """
    check(config)
    torch.manual_seed(config.seed)
    model = make_network(config, data, device, pretrained=config.pretrained)
    first = None
    if config.initial_weights is not None and not resumed:
        first = find_initial_weights(config.initial_weights)
        load_model(Path(first.checkpoint), model)
    example = example_images(data, device)
    replicas = 1 if processes is None else processes.replicas
    refuse_single_images(config, model, data, example, replicas=replicas)
    local = make_local(config, model, data, example, cuts=config.cuts)
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
    decay = config.average_weights
    averages = None if decay is None else WeightAverages(local.model, decay=decay)
    return Session(config, local, data, optimizer, device, engine, processes, averages, until, first)


def make_network(
    config: RunConfig, data: ImageData, device: torch.device, *, pretrained: bool = False
) -> nn.Module:
    """The configuration's network, its weights drawn from torch's random stream, or of its library."""
    channels, *size = data.image_shape
    model = models.create(
        config.model,
        num_classes=data.num_classes,
        in_channels=channels,
        image_size=(size[0], size[1]),
        pretrained=pretrained,
    )
    return model.to(device).to(memory_format=torch.channels_last)


def make_local(
    config: RunConfig, model: nn.Module, data: ImageData, example: Tensor, *, cuts: Sequence[str] | None
) -> LocalModel:
    """The network cut behind `cuts`, or as the configuration says, with heads and losses."""
    return localize(
        model,
        example,
        num_modules=None if cuts is not None else config.num_modules,
        cuts=cuts,
        balance=config.balance if cuts is None else "depth",
        objective=build_objective(config),
        task=task_of(config, data),
        checkpoint=config.checkpoint,
    )


def task_of(config: RunConfig, data: ImageData) -> Task:
    """The configuration's task on these data."""
    return make_task(
        config,
        num_classes=data.num_classes,
        has_masks=data.has_masks,
        image_shape=data.image_shape,
        mean=data.mean,
        std=data.std,
    )


def example_images(data: ImageData, device: torch.device) -> Tensor:
    """Images of the data's shape, without its content."""
    return torch.rand(4, *data.image_shape, generator=torch.Generator().manual_seed(0)).to(device)


def _require_compiler(device: torch.device) -> None:
    compiler = os.environ.get("CXX", "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise BadConfiguration(
            "compile needs a C++ compiler on a CPU",
            got=f"no {compiler}",
            remedy="install one, name it in CXX, or leave compile out",
        )


def open_with_data(
    path: Path, *, data_dir: Path | None, download: bool, device: torch.device
) -> tuple[RunFolder, RunConfig, ImageData]:
    """A run's folder, its configuration and its data, looked for where the run found them.

    Raises:
        BadRun: no such folder, or no run in it. BadData: the data are not there.
    """
    folder = RunFolder.open(path)
    config = from_plain(folder.configuration)
    if data_dir is None and folder.record.get("data_dir"):
        data_dir = Path(folder.record["data_dir"])
    skipped = skipped_before(path)
    data = prepare_data(config, data_dir=data_dir, download=download, device=device, skipped=skipped)
    return folder, config, data


def evaluate_run(
    path: Path,
    *,
    data_dir: Path | None,
    download: bool,
    device: torch.device,
    num_workers: int = 0,
    inference: Inference | None = None,
    best: bool = False,
    averaged: bool = True,
) -> tuple[Checkpoint, Evaluation]:
    """Rebuild a run's network from its configuration and test its last checkpoint; no heads, no split.

    Args:
        best: the checkpoint of the epoch with the best test result instead.
        inference: of masks, how each image is looked at; None: whole, as training tests.
        averaged: the run's averaged weights, where it kept them; False: those that it trained.
    """
    folder, config, data = open_with_data(path, data_dir=data_dir, download=download, device=device)
    model = make_network(config, data, device)
    checkpoint = folder.best_checkpoint() if best else folder.last_checkpoint()
    state = load_model(checkpoint, model, averaged=averaged)
    task, precision = task_of(config, data).to(device), PRECISIONS[config.precision]
    if inference is None:
        how: dict[str, Any] = {"device": device, "precision": precision, "num_workers": num_workers}
        return state, evaluate_data(model, task, data, **how)
    size = inference.batch_size
    found = plain_batches(data.test, data, batch_size=size, device=device, num_workers=num_workers)
    with autocast(device, precision):
        return state, evaluate_dense(model, task, found, inference=inference)
