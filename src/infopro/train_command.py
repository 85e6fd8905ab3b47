"""`infopro train`: from the options to a finished run, in one process or in many."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from infopro import recipes
from infopro.data import ImageData, num_batches
from infopro.determinism import deterministic
from infopro.engines import Processes
from infopro.errors import BadConfiguration
from infopro.options import DEFAULT_QUEUE
from infopro.stopping import StopRequest
from infopro.training import (
    DecoupledEpoch,
    ModuleEpoch,
    Position,
    RunFolder,
    TrainingProgress,
    locked,
)
from infopro.training.progress import best_so_far, tested
from infopro.types import EpochRecord

__all__ = ["run"]


def run(options: Any, config: recipes.RunConfig, console: Console) -> int:
    """Train as `config` says; the exit status.

    Raises:
        InfoProError: whatever does not fit together, or was lost on the way.
    """
    device = recipes.choose_device(options.device)
    recipes.check(config)
    _refuse_unread(options, config)
    stop = StopRequest()
    with (
        deterministic(config.deterministic),
        recipes.meet(config, device=device, timeout_seconds=options.timeout) as processes,
    ):
        stop.share(processes)
        return _run_together(options, config, console, processes, stop)


def _run_together(
    options: Any,
    config: recipes.RunConfig,
    console: Console,
    processes: Processes | None,
    stop: StopRequest,
) -> int:
    name, path, data_dir = _places(options, config)
    # torchrun --max-restarts starts all processes anew when one of them is lost: the run goes on
    resume = options.resume or (processes is not None and processes.remembers(str(path)))
    if processes is None or processes.rank == processes.writer:
        recipes.refuse_existing(path, resume=resume)
        if processes is not None:
            processes.remember(str(path))
    device = recipes.choose_device(options.device)
    data = _data(options, config, path, data_dir, resume)
    if processes is not None:
        recipes.require_alike(processes, config, data)
    launch = {name: getattr(options, name) for name in ("num_workers", "queue", "shard")}
    session = recipes.prepare(
        config,
        data,
        device=device,
        processes=processes,
        queue=options.queue,
        shard=options.shard,
        stop=stop,
        until=options.until,
        resumed=resume and RunFolder(path).has_checkpoint(),
    )
    lines = _Lines(session, console, name)
    # the process that writes holds the lock, for all of them
    with locked(path) if session.engine.writes else nullcontext():
        folder, checkpoint = recipes.open_run(
            session, path, name=name, resume=resume, data_dir=data_dir, launch=launch, say=lines.say
        )
        return _run_to_the_end(options, lines, folder, checkpoint, stop)


def _data(
    options: Any, config: recipes.RunConfig, path: Path, data_dir: Path | None, resume: bool
) -> ImageData:
    with recipes.listing_bad_images(path):
        return recipes.prepare_data(
            config,
            data_dir=data_dir,
            download=options.download,
            device=recipes.choose_device(options.device),
            skipped=recipes.skipped_before(path) if resume and config.on_bad_image == "skip" else None,
        )


def _run_to_the_end(
    options: Any, lines: _Lines, folder: RunFolder, checkpoint: Path | None, stop: StopRequest
) -> int:
    session = lines.session
    lines.begin()
    with stop.listening():  # not before: a wish would wait for processes that will never come
        records = _trained(session, folder, checkpoint, stop, lines, options)
        lines.say(recipes.write_timeline(session, folder))
        stopped = records is None or session.engine.stopped
        if stopped:
            has = folder.has_checkpoint()
            kept = f"a checkpoint is in {folder.path}/" if has else "nothing was trained yet"
            lines.say(f"stopped; {kept}; go on with --resume")
        elif records:
            _say_result(lines.console, records[-1], options.recipe, session.config, folder.path)
        if session.processes is not None:
            # torchrun ends all others when the first one ends with a status
            session.processes.wait_for_all("end")
    return stop.exit_status if stopped else 0


def _trained(
    session: recipes.Session,
    folder: RunFolder,
    checkpoint: Path | None,
    stop: StopRequest,
    lines: _Lines,
    options: Any,
) -> list[EpochRecord] | None:
    """The run's epochs; None where a cached run was stopped."""
    if session.config.parallel == "cached":
        return _train_cached(session, folder, checkpoint, stop, lines, options.num_workers)
    if session.config.parallel == "decoupled":
        return _train_decoupled(session, folder, checkpoint, lines, options.num_workers)
    keep = options.keep_checkpoints
    return _train(session, folder, checkpoint, lines, {"num_workers": options.num_workers, "keep": keep})


class _Lines:
    """What the terminal gets, from the one process that writes."""

    def __init__(self, session: recipes.Session, console: Console, name: str):
        self.session, self.console, self.name = session, console, name

    def say(self, text: str | None) -> None:
        if text is not None and self.session.engine.writes:
            self.console.print(text, highlight=False, soft_wrap=True)

    def say_alone(self, text: str) -> None:
        """What no other process knows of."""
        self.console.print(text, highlight=False, soft_wrap=True)

    def begin(self) -> None:
        self.say(recipes.describe(self.session))

    def resuming(self, start: Position) -> None:
        if start != Position():
            step = f", step {start.step}" if start.step else ""
            self.say(f"resuming after epoch {start.epoch}{step}")

    def module_epoch(self, record: ModuleEpoch) -> None:
        error = "" if record.test_error is None else f"  test error {record.test_error:.2f} %"
        self.say(f"{self._head(record)}{error}  {record.images_per_second:.0f} images/s")

    def decoupled_epoch(self, record: DecoupledEpoch) -> None:
        """Of every process: nobody else knows it."""
        fresh, text = record.freshness, ""
        if fresh.mean_uses:  # else it reads images, which are never stale
            text = (
                f"  staleness {fresh.mean_staleness:.1f} updates (at most {fresh.most_staleness})  "
                f"a batch is used {fresh.mean_uses:.1f} times"
            )
        self.say_alone(f"{self._head(record)}{text}")

    def _head(self, record: ModuleEpoch | DecoupledEpoch) -> str:
        epochs, modules = self.session.config.epochs, len(self.session.local.stages)
        return (
            f"{self.name}  module {record.module}/{modules}  epoch {record.epoch:>3}/{epochs}  "
            f"loss {record.losses['total']:.3f}"
        )


def _train(
    session: recipes.Session,
    folder: RunFolder,
    checkpoint: Path | None,
    lines: _Lines,
    how: dict[str, Any],
) -> list[EpochRecord]:
    start = recipes.restore(session, folder, checkpoint)
    how["say"] = lines.say_alone
    if not session.engine.writes:
        return recipes.train_run(session, folder, start=start, **how)
    lines.resuming(start)
    config = session.config
    bar = TrainingProgress(
        lines.console,
        title=lines.name,
        epochs=config.epochs,
        steps_per_epoch=num_batches(
            session.data.train, batch_size=config.batch_size, augmentation=session.data.augmentation
        ),
        first_epoch=start.epoch + 1,
    )
    with bar:
        return recipes.train_run(
            session, folder, start=start, on_step=bar.on_step, on_epoch=bar.on_epoch, **how
        )


def _train_cached(
    session: recipes.Session,
    folder: RunFolder,
    checkpoint: Path | None,
    stop: StopRequest,
    lines: _Lines,
    num_workers: int,
) -> list[EpochRecord] | None:
    try:
        recipes.train_cached_run(
            session,
            folder,
            resume_from=checkpoint,
            num_workers=num_workers,
            stop=stop,
            say=lines.say_alone,
            on_module_epoch=lines.module_epoch,
        )
    except recipes.Stopped:
        return None
    return folder.log()


def _train_decoupled(
    session: recipes.Session, folder: RunFolder, checkpoint: Path | None, lines: _Lines, num_workers: int
) -> list[EpochRecord]:
    start = recipes.restore(session, folder, checkpoint)
    lines.resuming(start)
    return recipes.train_decoupled_run(
        session,
        folder,
        first_epoch=start.epoch + 1,
        num_workers=num_workers,
        say=lines.say_alone,
        on_module_epoch=lines.decoupled_epoch,
    )


def _places(options: Any, config: recipes.RunConfig) -> tuple[str, Path, Path | None]:
    """The run's name and folder, and where the data are."""
    name = options.recipe or f"{Path(config.data).stem}-{config.model.replace('/', '-')}-{config.objective}"
    path = Path(options.output or f"runs/{name}-seed{config.seed}")
    return name, path, Path(options.data_dir) if options.data_dir else None


def _refuse_unread(options: Any, config: recipes.RunConfig) -> None:
    """Options that nothing would read."""
    exact = ("none", "pipeline", "data")
    read = {"shard": ("pipeline", "data"), "queue": ("pipeline", "decoupled"), "until": exact}
    given = {
        "shard": options.shard,
        "queue": options.queue != DEFAULT_QUEUE,
        "until": options.until is not None,
    }
    for name, allowed in read.items():
        if given[name] and config.parallel not in allowed:
            raise BadConfiguration(
                f"--{name} is set, and nothing reads it",
                got=f"--parallel {config.parallel}",
                allowed=f"--parallel {' or '.join(allowed)}",
            )


def _say_result(
    console: Console, last: EpochRecord, recipe: str | None, config: recipes.RunConfig, path: Path
) -> None:
    # a decoupled run is tested once
    best = "" if config.parallel == "decoupled" else f", {best_so_far(last):.2f} % after the best one"
    console.print(
        f"{tested(last)} after the last epoch{best}{recipes.published_beside(recipe, config)}\nwrote {path}/",
        highlight=False,
        soft_wrap=True,
    )
