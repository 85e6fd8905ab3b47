"""A session's run: its folder, its loop, its checkpoints; by one process or by many."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from infopro.determinism import deterministic
from infopro.engines import Pipeline
from infopro.engines.timeline import COMPUTE, idle_shares, read_timelines
from infopro.errors import BadRun, MissingPackage
from infopro.memory import PRECISIONS
from infopro.recipes._config import RunConfig
from infopro.recipes._mask_examples import write_mask_examples
from infopro.recipes._pictures import Pictures
from infopro.recipes._record import run_record
from infopro.recipes._saving import save_state
from infopro.recipes._session import Session
from infopro.recipes._stored import plain, unlike_defaults
from infopro.report.timeline import format_idle_shares, write_timeline_page
from infopro.training import (
    KEPT,
    Checkpoint,
    Diverged,
    EpochSums,
    LossSpike,
    Position,
    RunFolder,
    TensorBoardLog,
    load_apart,
    load_checkpoint,
    make_schedule,
    newest_intact,
    refuse_locked,
    remove_partial,
    rename_damaged,
    train,
)
from infopro.training.averaging import in_place
from infopro.training.schedules import Schedule, scaled
from infopro.types import EpochRecord
from infopro.writable import require_writable

__all__ = [
    "fit",
    "open_run",
    "refuse_existing",
    "restore",
    "save_state",
    "schedule_of",
    "train_once",
    "write_timeline",
]


def refuse_existing(path: Path, *, resume: bool) -> None:
    """Fail before the data is loaded and the network built, not after.

    Raises:
        BadRun: a folder that exists without `resume`, or one that another process is writing to.
        BadConfiguration: one that cannot be written.
    """
    refuse_locked(path)
    if not (resume and (path / "config.json").exists()):
        RunFolder.require_new(path)
    require_writable(path)


def open_run(
    session: Session,
    path: Path,
    *,
    name: str,
    resume: bool,
    data_dir: Path | None,
    launch: Mapping[str, Any] | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> tuple[RunFolder, Path | None]:
    """The run's folder, and the checkpoint to go on from: the newest one that is whole.

    Of several processes the one that writes opens it; the folder must be one that all of them see.

    Args:
        launch: how the processes were told to work, for the run's record.
        say: called with a line for each newer checkpoint that is damaged, and is now called `NAME.damaged`.

    Raises:
        BadRun: a folder that exists without `resume`, or one of another configuration; one whose checkpoints
            are all damaged.
    """
    checkpoint = None
    if session.engine.writes:
        record = run_record(session, name, data_dir, launch or {})
        checkpoint = _open(path, plain(session.config), record, resume=resume, say=say)
    if session.processes is not None:
        checkpoint = session.processes.agree("checkpoint", checkpoint)
    folder = RunFolder.open(path)
    if session.engine.writes:
        shutil.rmtree(folder.path / "timeline", ignore_errors=True)  # of a run by other processes, perhaps
    return folder, None if checkpoint is None else folder.checkpoint_folder / checkpoint


def restore(session: Session, folder: RunFolder, checkpoint: Path | None) -> Position:
    """Where to go on, the session's weights and optimizer state restored from a checkpoint.

    Raises:
        BadRun: a damaged checkpoint, one of another network, a log that lacks epochs.
    """
    if checkpoint is None:
        return Position()
    state = load_checkpoint(checkpoint, session.local, session.optimizer, averages=session.averages)
    load_apart(checkpoint, session.engine, session.averages)
    if session.engine.writes and session.config.parallel != "decoupled":  # which logs its last epoch only
        _cut_log(folder, state)
    return Position(state.epoch, state.step, state.best_test_error, _sums(checkpoint, state))


def fit(session: Session, *, rate_factor: float = 1.0, **options: Any) -> list[EpochRecord]:
    """Train as the configuration says, without a run folder, and without going back to a checkpoint.

    Args:
        rate_factor: of the schedule's learning rates.
        options: see `infopro.training.train`.
    """
    config = session.config
    with deterministic(config.deterministic):
        return train(
            session.local,
            session.data,
            optimizer=session.optimizer,
            schedule=scaled(schedule_of(config), rate_factor),
            epochs=session.last_epoch,
            batch_size=config.batch_size,
            seed=config.seed,
            device=session.device,
            precision=PRECISIONS[config.precision],
            clip_gradients=config.clip_gradients,
            on_divergence="skip" if config.on_divergence == "skip" else "stop",
            averages=session.averages,
            engine=session.engine,
            **options,
        )


def schedule_of(config: RunConfig) -> Schedule:
    """The learning rate that a configuration describes."""
    return make_schedule(
        config.schedule,
        base=config.learning_rate,
        epochs=config.epochs,
        warmup_epochs=config.warmup_epochs,
    )


def train_once(
    session: Session,
    folder: RunFolder,
    *,
    start: Position,
    num_workers: int = 0,
    keep: int = KEPT,
    rate_factor: float = 1.0,
    on_step: Callable[[int, int], object] | None = None,
    on_spike: Callable[[LossSpike], object] | None = None,
    on_epoch: Callable[[EpochRecord], object] | None = None,
) -> list[EpochRecord]:
    """Train, writing one log line, one TensorBoard point and one checkpoint after every epoch.

    Asked to stop, it leaves a checkpoint of the last step. The last `keep` checkpoints stay, and the best
    epoch's.
    """
    engine = session.engine
    done = folder.log() if engine.writes else []
    board = (
        TensorBoardLog(folder.path / "tensorboard", first_epoch=start.epoch + 1) if engine.writes else None
    )

    pictures = Pictures(session)

    def log(record: EpochRecord) -> None:
        folder.append(record)  # first: a line without its checkpoint is dropped on resuming
        if board is not None:
            board.add(record)
            pictures.write(board, record.epoch)
        if on_epoch is not None:
            on_epoch(record)

    try:
        new = fit(
            session,
            rate_factor=rate_factor,
            start=start,
            num_workers=num_workers,
            on_step=on_step,
            on_spike=on_spike,
            on_epoch=log,
            save=lambda position: save_state(session, folder, position, keep=keep),
        )
    except Diverged as error:
        raise type(error)(f"{session.config.objective}: {error}") from error
    finally:
        if board is not None:
            board.close()
    if isinstance(engine, Pipeline):
        engine.finish()
    if not engine.stopped:
        with in_place(session.averages):
            write_mask_examples(session, folder.path)
    return [*done, *new]


def write_timeline(session: Session, folder: RunFolder) -> str | None:
    """Leave what every process did and when in the run folder; as text, how much of it was waiting."""
    engine, processes = session.engine, session.processes
    if not isinstance(engine, Pipeline) or processes is None:
        return None
    engine.write_timeline(folder.path / "timeline")
    processes.wait_for_all("timeline")
    if not engine.writes:
        return None
    timelines = read_timelines(folder.path / "timeline")
    if not any(span.kind in COMPUTE for timeline in timelines for span in timeline.spans):
        return None  # a finished run that was asked to go on
    try:
        title = str(folder.record["name"])
        page = write_timeline_page(
            timelines,
            folder.path / "timeline.html",
            title=title,
            command=str(folder.record["command"]),
        )
        drawn = f"drawn in {page}"
    except MissingPackage as missing:
        drawn = f"not drawn: {missing}"
    return f"{format_idle_shares(idle_shares(timelines))}\ntimeline in {folder.path}/timeline/, {drawn}"


def _open(
    path: Path,
    configuration: dict[str, Any],
    record: dict[str, Any],
    *,
    resume: bool,
    say: Callable[[str], object],
) -> str | None:
    """The name of the checkpoint to go on from, in a folder that exists now."""
    if not (resume and (path / "config.json").exists()):
        RunFolder.create(path, configuration=configuration, record=record)
        return None
    folder = RunFolder.open(path)
    folder.require_same(unlike_defaults(configuration, folder.configuration))
    remove_partial(folder.checkpoint_folder)
    newest, damaged = newest_intact(folder.checkpoint_folder)
    if newest is None:
        folder.truncate_log(last_epoch=0)
        return None
    for path, error in damaged.items():
        say(f"{str(error).partition(';')[0]}: passed over, now called {path.name}.damaged")
    rename_damaged(damaged)
    return newest.name


def _sums(checkpoint: Path, state: Checkpoint) -> EpochSums:
    try:
        return EpochSums(**state.totals)
    except TypeError as error:
        what = f"the checkpoint {checkpoint} has other sums than this version"
        raise BadRun(what, got=error, remedy="use the version that wrote it, or start anew") from error


def _cut_log(folder: RunFolder, state: Checkpoint) -> None:
    folder.truncate_log(last_epoch=state.epoch)
    if len(folder.log()) != state.epoch:
        raise BadRun(
            "the run's log.jsonl lacks epochs that its checkpoint has",
            got=f"{len(folder.log())} lines, checkpoint of epoch {state.epoch}",
            remedy="restore the log, or start anew with another --output",
        )
