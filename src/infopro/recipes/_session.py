"""From a configuration to a run: the parts, then a folder that fills."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from infopro import data as data_sets
from infopro import models
from infopro.data import ImageData
from infopro.errors import BadConfiguration, BadRun
from infopro.local import LocalModel
from infopro.localization import localize
from infopro.recipes._config import RunConfig, build_objective, check
from infopro.tasks import Classification
from infopro.training import (
    Checkpoint,
    Evaluation,
    RunFolder,
    TensorBoardLog,
    describe_environment,
    evaluate_data,
    load_checkpoint,
    load_model,
    make_optimizer,
    make_schedule,
    save_checkpoint,
    train,
)
from infopro.types import EpochRecord

__all__ = [
    "Session",
    "choose_device",
    "evaluate_run",
    "fit",
    "open_run",
    "prepare",
    "prepare_data",
    "refuse_existing",
    "train_run",
]

_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Session:
    """All parts of a run, built and ready."""

    config: RunConfig
    local: LocalModel
    data: ImageData
    optimizer: torch.optim.Optimizer
    device: torch.device


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the GPU where there is one.

    Raises:
        BadConfiguration: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
    """The configuration's data set; sets held as tensors are moved to the device."""
    loaded = data_sets.load(config.data, data_dir=data_dir, download=download, image_size=config.image_size)
    limited = data_sets.limit(loaded, train=config.limit_train, test=config.limit_test)
    return replace(limited, train=limited.train.to(device), test=limited.test.to(device))


def prepare(config: RunConfig, data: ImageData, *, device: torch.device) -> Session:
    """Network, split, objective and optimizer; the same seed gives the same weights.

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
    )
    optimizer = make_optimizer(
        config.optimizer,
        local.parameters(),
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        nesterov=config.nesterov,
    )
    return Session(config, local, data, optimizer, device)


def refuse_existing(path: Path, *, resume: bool) -> None:
    """Fail before the data is loaded and the network built, not after."""
    if not resume:
        RunFolder.require_new(path)


def open_run(
    session: Session, path: Path, *, name: str, resume: bool, data_dir: Path | None
) -> tuple[RunFolder, int]:
    """The run's folder and the epoch to go on with, the session's weights restored from the last checkpoint.

    Raises:
        BadRun: a folder that exists without `resume`, or one of another configuration.
    """
    configuration = _plain(session.config)
    if not (resume and (path / "config.json").exists()):
        record = {
            "name": name,
            "command": shlex.join(["infopro", *sys.argv[1:]]),
            "configuration": configuration,
            "data_dir": None if data_dir is None else str(data_dir.resolve()),
            "cuts": list(session.local.split.cuts),
            "split_notes": list(session.local.split.notes),
            "environment": describe_environment(session.device),
        }
        return RunFolder.create(path, configuration=configuration, record=record), 1
    folder = RunFolder.open(path)
    folder.require_same(configuration)
    if not folder.has_checkpoint():
        folder.truncate_log(last_epoch=0)
        return folder, 1
    state = load_checkpoint(folder.last_checkpoint(), session.local, session.optimizer)
    folder.truncate_log(last_epoch=state.epoch)
    if len(folder.log()) != state.epoch:
        raise BadRun(
            "the run's log.jsonl lacks epochs that its checkpoint has",
            got=f"{len(folder.log())} lines, checkpoint of epoch {state.epoch}",
            remedy="restore the log, or start anew with another --output",
        )
    return folder, state.epoch + 1


def fit(session: Session, **options: Any) -> list[EpochRecord]:
    """Train as the configuration says, without a run folder; `options`: see `infopro.training.train`."""
    config = session.config
    return train(
        session.local,
        session.data,
        optimizer=session.optimizer,
        schedule=make_schedule(
            config.schedule,
            base=config.learning_rate,
            epochs=config.epochs,
            warmup_epochs=config.warmup_epochs,
        ),
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        device=session.device,
        precision=_PRECISIONS[config.precision],
        **options,
    )


def train_run(
    session: Session,
    folder: RunFolder,
    *,
    first_epoch: int,
    num_workers: int = 0,
    on_step: Callable[[int, int], object] | None = None,
    on_epoch: Callable[[EpochRecord], object] | None = None,
) -> list[EpochRecord]:
    """Train, writing one log line, one TensorBoard point and one checkpoint after every epoch."""
    config, done = session.config, folder.log()
    board = TensorBoardLog(folder.path / "tensorboard", first_epoch=first_epoch)

    def finish(record: EpochRecord) -> None:
        state = Checkpoint(record.epoch, record.best_test_error, _plain(config))
        folder.append(record)  # first: a line without its checkpoint is dropped on resuming
        save_checkpoint(folder.checkpoint_folder, session.local, session.optimizer, state)
        board.add(record)
        if on_epoch is not None:
            on_epoch(record)

    try:
        new = fit(
            session,
            first_epoch=first_epoch,
            best_test_error=done[-1].best_test_error if done else 100.0,
            num_workers=num_workers,
            on_step=on_step,
            on_epoch=finish,
        )
    finally:
        board.close()
    return [*done, *new]


def evaluate_run(
    path: Path, *, data_dir: Path | None, download: bool, device: torch.device, num_workers: int = 0
) -> tuple[Checkpoint, Evaluation]:
    """Rebuild a run's network from its configuration and test its last checkpoint; no heads, no split."""
    folder = RunFolder.open(path)
    config = _from_plain(folder.configuration)
    if data_dir is None and folder.record.get("data_dir"):
        data_dir = Path(folder.record["data_dir"])
    data = prepare_data(config, data_dir=data_dir, download=download, device=device)
    channels, height, _ = data.image_shape
    model = models.create(config.model, num_classes=data.num_classes, in_channels=channels, image_size=height)
    state = load_model(folder.last_checkpoint(), model)
    model.to(device).to(memory_format=torch.channels_last)
    task = Classification(num_classes=data.num_classes, mean=data.mean, std=data.std).to(device)
    precision = _PRECISIONS[config.precision]
    return state, evaluate_data(
        model, task, data, device=device, precision=precision, num_workers=num_workers
    )


def _plain(config: RunConfig) -> dict[str, Any]:
    """What JSON gives back: lists for tuples."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()
    }


def _from_plain(values: dict[str, Any]) -> RunConfig:
    """A configuration from its JSON form."""
    known: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    try:
        config = RunConfig(**known)
    except TypeError as error:
        raise BadConfiguration(
            "the run's config.json has other fields than this version", got=error
        ) from error
    check(config)
    return config
