"""One job in one process: a run that is trained to its end or to the deadline, and what is recorded of it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from gpu_execution import next_step, prepare
from gpu_jobs import Job
from gpu_mosaics import read_mosaics

from infopro import data as data_sets
from infopro import recipes
from infopro.data import ImageData
from infopro.recipes import RunConfig, Session
from infopro.training import Checkpoint, Position, RunFolder, describe_environment, save_checkpoint
from infopro.types import EpochRecord

__all__ = ["Data", "described", "free", "peak", "set_precision", "train"]

EPOCHS_BETWEEN_CHECKPOINTS = 10


class Data:
    """Data sets on their device, each read once."""

    def __init__(self, device: torch.device, *, mosaics: Path | None = None, data_dir: Path | None = None):
        self._device, self._mosaics, self._data_dir = device, mosaics, data_dir
        self._known: dict[tuple[Any, ...], ImageData] = {}

    def of(self, config: RunConfig) -> ImageData:
        """What `recipes.prepare_data` gives."""
        names = ("data", "image_size", "crop", "scale", "hold_out", "limit_train", "limit_test")
        key = tuple(getattr(config, name) for name in names)
        if key not in self._known:
            self._known[key] = self._read(config)
        return self._known[key]

    def _read(self, config: RunConfig) -> ImageData:
        if config.data != "cifar10" or self._mosaics is None:
            return recipes.prepare_data(config, data_dir=self._data_dir, download=False, device=self._device)
        found = read_mosaics(self._mosaics)
        if config.hold_out is not None:
            found = data_sets.hold_out(found, fraction=config.hold_out)
        found = data_sets.limit(found, train=config.limit_train, test=config.limit_test)
        return replace(found, train=found.train.to(self._device), test=found.test.to(self._device))


def train(
    job: Job, data: Data, *, device: torch.device, runs: Path, stop: Callable[[], bool]
) -> dict[str, Any] | None:
    """Train a job's run, from its last checkpoint on if it has one, and describe it.

    Args:
        runs: the folder of unfinished runs.
        stop: asked before every step; a run that is stopped leaves a checkpoint of its last step.

    Returns:
        The columns of a finished run; None of one that was stopped.
    """
    free(device)
    config = job.config()
    prepared = prepare(job, data.of(config), device=device, stop=stop)
    session = prepared.session
    log = _resumable(prepared.job, session, runs)
    if len(log) < config.epochs:
        return None
    if [record.epoch for record in log] != list(range(1, config.epochs + 1)):
        raise RuntimeError(f"{runs / prepared.job.name} was written by two processes at once: delete it")
    last = log[-1]
    return {
        **prepared.columns,
        "test_error": last.test_error,
        "best_test_error": last.best_test_error,
        "train_error": last.train_error,
        "epochs": last.epoch,
        "seconds": round(sum(record.seconds for record in log), 2),  # of training, tests not counted
        "peak_bytes": peak(device),
        "data_bytes": _data_bytes(session.data),
    }


def _resumable(job: Job, session: Session, runs: Path) -> list[EpochRecord]:
    folder, checkpoint = recipes.open_run(
        session, runs / job.name, name=job.recipe, resume=True, data_dir=None
    )
    saving = _Saving(session, folder)
    start = recipes.restore(session, folder, checkpoint)
    recipes.fit(session, start=start, on_step=next_step, on_epoch=folder.append, save=saving)
    saving.settle()
    return folder.log()


class _Saving:
    """A checkpoint every few epochs, and one where a run is stopped: small networks' epochs last a second."""

    def __init__(self, session: Session, folder: RunFolder):
        self._session, self._folder = session, folder
        self._unsaved: Position | None = None

    def __call__(self, position: Position) -> None:
        self._unsaved = position
        last = position.epoch == self._session.config.epochs
        if position.step == 0 and position.epoch % EPOCHS_BETWEEN_CHECKPOINTS and not last:
            return
        self.settle()

    def settle(self) -> None:
        """Write the position that is not written yet: no step was done since."""
        position, self._unsaved = self._unsaved, None
        if position is None:
            return
        state = Checkpoint(
            epoch=position.epoch,
            best_test_error=position.best_test_error,
            configuration=self._folder.configuration,
            step=position.step,
            totals=asdict(position.sums) if position.step else {},
        )
        local, optimizer = self._session.local, self._session.optimizer
        save_checkpoint(self._folder.checkpoint_folder, local, optimizer, state, keep=1)


def set_precision(name: str) -> None:
    """The process's precision of convolutions and matrix products in float32."""
    reduced = name != "float32"
    torch.set_float32_matmul_precision("high" if reduced else "highest")
    torch.backends.cudnn.allow_tf32 = reduced
    torch.backends.cudnn.benchmark = True


def free(device: torch.device) -> None:
    """Give back what an earlier job left, and count from here."""
    if "torch._dynamo" in sys.modules:  # what was compiled, which holds networks
        torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> int | None:
    """Most bytes that tensors and workspaces had at once since `free`; None on a CPU, which does not say."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def described(job: Job, device: torch.device, *, side_by_side: int, commit: str | None) -> dict[str, Any]:
    """A row's columns that do not depend on what came out."""
    found = describe_environment(device)
    source = found["source"] or {}
    options = {n: v for n, v in asdict(job).items() if n != "estimate"}
    return {
        **options,
        "side_by_side": side_by_side,
        "hardware": found["device"],
        "versions": {**found["versions"], "python": found["python"], "cuda": torch.version.cuda},
        "commit": commit or source.get("commit"),
        "modified": source.get("modified"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _data_bytes(data: ImageData) -> int:
    """Bytes of the data set where it lies on the device, which the peak holds as well."""
    parts = [getattr(part, "images", None) for part in (data.train, data.test)]
    return sum(images.nbytes for images in parts if isinstance(images, torch.Tensor))
