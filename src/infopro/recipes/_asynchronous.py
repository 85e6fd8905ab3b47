"""Runs whose modules do not train on the same batches at the same time: cached, and decoupled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from infopro.determinism import deterministic
from infopro.engines import Decoupled
from infopro.engines.feature_cache import DiskTooSmall
from infopro.memory import PRECISIONS
from infopro.recipes._reloading import answer_to_spikes
from infopro.recipes._running import save_state, schedule_of
from infopro.recipes._session import Session
from infopro.recipes._stored import plain
from infopro.training import (
    Checkpoint,
    DecoupledEpoch,
    ModuleEpoch,
    RunFolder,
    load_checkpoint,
    make_optimizer,
    save_checkpoint,
    train_cached,
    train_decoupled,
)
from infopro.types import EpochRecord

__all__ = ["Stopped", "train_cached_run", "train_decoupled_run"]


class Stopped(Exception):
    """A signal came; the last checkpoint is where to go on."""


def train_decoupled_run(
    session: Session,
    folder: RunFolder,
    *,
    first_epoch: int,
    num_workers: int = 0,
    on_step: Callable[[int, int], object] | None = None,
    say: Callable[[str], object] = lambda text: None,
    on_module_epoch: Callable[[DecoupledEpoch], object] | None = None,
) -> list[EpochRecord]:
    """Train one module at this process's own pace; one line per epoch in `module-K.jsonl`, one checkpoint."""
    engine = session.engine
    assert isinstance(engine, Decoupled)
    file = f"module-{engine.stages.start + 1}.jsonl"
    folder.keep_lines(file, first_epoch - 1)
    done = folder.log() if engine.writes else []

    def log(record: DecoupledEpoch) -> None:
        folder.append_line(file, asdict(record))
        if on_module_epoch is not None:
            on_module_epoch(record)

    records = train_decoupled(
        engine,
        session.data,
        optimizer=session.optimizer,
        batch_size=session.config.batch_size,
        seed=session.config.seed,
        device=session.device,
        first_epoch=first_epoch,
        num_workers=num_workers,
        on_step=on_step,
        on_module_epoch=log,
        save=lambda position: save_state(session, folder, position),
        **_settings(session, say),
    )
    for record in records:
        folder.append(record)
    engine.finish()
    return [*done, *records]


def train_cached_run(
    session: Session,
    folder: RunFolder,
    *,
    resume_from: Path | None,
    num_workers: int = 0,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], object] = lambda text: None,
    on_module_epoch: Callable[[ModuleEpoch], object] | None = None,
) -> list[EpochRecord]:
    """Train one module after another; one line per epoch in `modules.jsonl`, one checkpoint after each.

    Raises:
        Stopped: `stop` was true between two batches, of training, of a test or of what is recorded.
    """
    run = _CachedRun(session, folder, resume_from)

    def refuse_to_go_on() -> None:
        if stop():
            raise Stopped

    def finish(record: ModuleEpoch) -> None:
        run.finish(record)
        if on_module_epoch is not None:
            on_module_epoch(record)

    if run.is_finished:
        return []
    features = folder.path / "features"
    try:
        with deterministic(session.config.deterministic):
            records = train_cached(
                session.local,
                session.data,
                make_optimizer=run.make_optimizer,
                batch_size=session.config.batch_size,
                seed=session.config.seed,
                device=session.device,
                views=session.config.views,
                cache_folder=features,
                num_workers=num_workers,
                on_batch=refuse_to_go_on,
                on_module_epoch=finish,
                on_epoch=run.log,
                **run.start,
                **_settings(session, say),
            )
    except DiskTooSmall:
        if not folder.has_checkpoint():
            folder.discard()  # nothing was trained: the command may be given again, with fewer views
        raise
    if features.is_dir() and not any(features.iterdir()):
        features.rmdir()
    return records


class _CachedRun:
    """What a cached run keeps on disk, and where it goes on."""

    def __init__(self, session: Session, folder: RunFolder, resume_from: Path | None):
        self._session = session
        self._folder = folder
        self._resume_from = resume_from
        self._finished: list[dict[str, float]] = []
        self._best = 100.0
        self._optimizer: torch.optim.Optimizer | None = None
        self._last: ModuleEpoch | None = None
        self.start: dict[str, Any] = {}
        if resume_from is None:
            (folder.path / "modules.jsonl").unlink(missing_ok=True)
        else:
            self._restore(resume_from)

    @property
    def is_finished(self) -> bool:
        """Whether the last epoch of the last module was completed."""
        return int(self.start.get("first_epoch", 1)) > self._session.config.epochs

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Of one module; with the state that it had, where a run goes on inside its epochs."""
        self._optimizer = self._new_optimizer(parameters)
        if self.start.get("first_epoch", 1) > 1 and self._resume_from is not None:
            load_checkpoint(self._resume_from, self._session.local, self._optimizer)
            self._resume_from = None
        return self._optimizer

    def finish(self, record: ModuleEpoch) -> None:
        """One epoch of one module is done; of the last one, the test of the network is still to come."""
        self._folder.append_line("modules.jsonl", asdict(record))
        self._last = record
        if record.module < len(self._session.local.stages):
            self._save(record)

    def log(self, record: EpochRecord) -> None:
        """The network was tested."""
        assert self._last is not None
        self._best = record.best_test_error
        self._folder.append(record)
        self._save(self._last)

    def _save(self, record: ModuleEpoch) -> None:
        assert self._optimizer is not None
        epochs = self._session.config.epochs
        if record.epoch == epochs:
            self._finished.append(dict(record.losses))
        state = Checkpoint(
            epoch=(record.module - 1) * epochs + record.epoch,
            best_test_error=self._best,
            configuration=plain(self._session.config),
            totals={"finished_losses": self._finished},
        )
        save_checkpoint(self._folder.checkpoint_folder, self._session.local, self._optimizer, state)

    def _restore(self, path: Path) -> None:
        epochs, local = self._session.config.epochs, self._session.local
        number = int(path.name.partition("-")[2])
        saved = local.stages[(number - 1) // epochs]
        state = load_checkpoint(path, local, self._new_optimizer(saved.parameters()))
        module, epoch = divmod(number, epochs)
        self._finished = list(state.totals["finished_losses"])
        self._best = state.best_test_error
        self.start = {
            "first_module": min(module + 1, len(local.stages)),
            "first_epoch": epoch + 1 if module < len(local.stages) else epochs + 1,
            "finished_losses": self._finished[: len(local.stages) - 1],
            "best_test_error": self._best,
        }
        self._folder.keep_lines("modules.jsonl", number)
        self._folder.truncate_log(last_epoch=max(0, number - (len(local.stages) - 1) * epochs))

    def _new_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        config = self._session.config
        return make_optimizer(
            config.optimizer,
            parameters,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            nesterov=config.nesterov,
        )


def _settings(session: Session, say: Callable[[str], object]) -> dict[str, Any]:
    config = session.config
    return {
        "schedule": schedule_of(config),
        "epochs": config.epochs,
        "precision": PRECISIONS[config.precision],
        "clip_gradients": config.clip_gradients,
        "on_spike": answer_to_spikes(config, say),
    }
