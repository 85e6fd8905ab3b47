"""Going back to the last checkpoint with a lower learning rate, where a run's numbers go wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infopro.errors import BadRun
from infopro.recipes._config import RunConfig
from infopro.recipes._running import restore, train_once
from infopro.recipes._saving import save_state
from infopro.recipes._session import Session
from infopro.training import (
    KEPT,
    Diverged,
    LossSpike,
    Position,
    RunFolder,
    Spiked,
    newest_intact,
    rename_damaged,
    stop_at_spikes,
)
from infopro.types import EpochRecord

__all__ = ["RELOADS_FILE", "Reload", "answer_to_spikes", "read_reloads", "train_run"]

RELOADS_FILE = "reloads.jsonl"
MOST = 3  # of a run
FACTOR = 0.5  # of the learning rate, from each of them on


@dataclass(frozen=True)
class Reload:
    """A line of `reloads.jsonl`: where training goes on, at which share of its learning rate, and why."""

    epoch: int  # finished epochs of the checkpoint, and steps of the next one
    step: int
    rate_factor: float  # of the schedule, from there on
    cause: str


def train_run(
    session: Session,
    folder: RunFolder,
    *,
    start: Position,
    keep: int = KEPT,
    say: Callable[[str], object] = lambda text: None,
    **options: Any,
) -> list[EpochRecord]:
    """Train as `train_once`, going back to the last checkpoint where the configuration wants it.

    Each time the learning rate is halved for the rest of the run; after three times the run ends. A line in
    `reloads.jsonl`, on the disk before training goes on, says from which place of the run on the rate holds:
    so a resumed run has it from that place on, too, whichever checkpoint it resumes from.

    Args:
        start: where an interrupted run goes on; see `restore`.
        say: called with a line for each loss spike, by the process that trains the module, and each reload.
        options: see `train_once`.

    Raises:
        Diverged: numbers went wrong, and nothing is left to try, or is wanted.
    """
    config, engine = session.config, session.engine
    goes_back = "reload" in (config.on_divergence, config.on_spike)
    reloads = _until(folder, start) if goes_back else []
    if goes_back and not folder.has_checkpoint():
        save_state(session, folder, start, keep=keep)  # there is always a place to go back to
    how: dict[str, Any] = {"keep": keep, "on_spike": answer_to_spikes(config, say), **options}
    while True:
        factor = reloads[-1].rate_factor if reloads else 1.0
        try:
            records = train_once(session, folder, start=start, rate_factor=factor, **how)
        except Diverged as error:
            _require_wanted(config, error, reloads)
            cause = str(error).partition(";")[0]
        else:
            return folder.log() if reloads and engine.writes else records
        start = _gone_back(session, folder)
        reloads.append(Reload(start.epoch, start.step, factor * FACTOR, cause))
        folder.append_line(RELOADS_FILE, asdict(reloads[-1]))
        say(_told(reloads))


def read_reloads(path: Path) -> list[Reload]:
    """A run's reloads, first one first; `path` is its folder.

    Raises:
        BadRun: a line that cannot be read.
    """
    file = path / RELOADS_FILE
    try:
        text = file.read_text() if file.is_file() else ""
        # a line without its end was being written when the run was killed: it had not gone back yet
        return [Reload(**json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()]
    except (OSError, ValueError, TypeError) as error:
        raise BadRun(f"{file} cannot be read", got=error, remedy="restore it from a copy") from error


def _until(folder: RunFolder, start: Position) -> list[Reload]:
    """Those that come before a place of the run; the file is cut to them, as the log is."""
    found = read_reloads(folder.path)
    kept = [reload for reload in found if (reload.epoch, reload.step) <= (start.epoch, start.step)]
    folder.keep_lines(RELOADS_FILE, len(kept))
    return kept


def answer_to_spikes(config: RunConfig, say: Callable[[str], object]) -> Callable[[LossSpike], object]:
    """What `on_spike` does: a line for each, or the end of the run or of this attempt."""
    if config.on_spike == "warn":
        return lambda spike: say(f"{config.objective}: {spike}")
    return stop_at_spikes


def _require_wanted(config: RunConfig, error: Diverged, reloads: list[Reload]) -> None:
    wanted = config.on_spike if isinstance(error, Spiked) else config.on_divergence
    if wanted != "reload":
        raise error
    if len(reloads) == MOST:
        raise type(error)(
            str(error).partition(";")[0],
            remedy=f"the run has gone back {MOST} times, to {reloads[-1].rate_factor} of its learning rate: "
            "look at the data and the settings, and start anew with another --output",
        ) from error


def _gone_back(session: Session, folder: RunFolder) -> Position:
    newest, damaged = newest_intact(folder.checkpoint_folder)
    rename_damaged(damaged)
    return restore(session, folder, newest)


def _told(reloads: list[Reload]) -> str:
    last = reloads[-1]
    step = f", step {last.step}" if last.step else ""
    return (
        f"{last.cause}: back to epoch {last.epoch}{step}, on with {last.rate_factor} of the learning rate "
        f"({len(reloads)} of {MOST} times)"
    )
