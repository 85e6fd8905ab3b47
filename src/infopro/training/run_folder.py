"""A run is a folder: configuration, record, log, checkpoints, TensorBoard events, report."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infopro.errors import BadRun
from infopro.training._record_form import misrecorded
from infopro.training._tensor_files import sync_folder, unwritten
from infopro.training.checkpoints import Checkpoint, checkpoints
from infopro.training.lock import LOCK_FILE
from infopro.types import EpochRecord

__all__ = ["RunFolder"]

# what a run leaves that was killed before its configuration was on the disk: it has begun nothing
_BEGUN = {LOCK_FILE, "checkpoints", "run.json", ".run.json.partial", ".config.json.partial"}


class RunFolder:
    """Reads and writes one run's folder.

    `config.json` and `run.json` are written once, at the start; `log.jsonl` grows by one line an epoch.
    """

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def create(cls, path: Path, *, configuration: Mapping[str, Any], record: Mapping[str, Any]) -> RunFolder:
        """Make a new run folder.

        Raises:
            BadRun: the folder exists and is not empty: nothing is ever overwritten.
        """
        cls.require_new(path)
        try:
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            _write(path / "run.json", json.dumps(record, indent=1) + "\n")
            _write(path / "config.json", json.dumps(configuration, indent=1) + "\n")  # last: now it is a run
        except OSError as error:
            raise BadRun(
                "the run folder cannot be written", got=error, remedy="pass another --output"
            ) from error
        return cls(path)

    @staticmethod
    def require_new(path: Path, *, remedy: str = "pass --resume to continue it, or another --output") -> None:
        """Refuse a folder that holds anything.

        Raises:
            BadRun: the folder exists and is not empty, or cannot be looked into.
        """
        try:
            taken = path.exists() and (not path.is_dir() or not _is_unused(path))
        except OSError as error:
            raise BadRun("the folder cannot be used", got=error, remedy="pass another --output") from error
        if taken:
            what = "the run folder exists" if path.is_dir() else "a file stands where the folder would be"
            raise BadRun(what, got=path, remedy=remedy if path.is_dir() else "pass another --output")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run folder."""
        if not (path / "config.json").is_file():
            what = (
                "the run folder does not exist"
                if not path.exists()
                else "the folder holds no run (no config.json)"
            )
            raise BadRun(what, got=path, remedy="pass the folder that infopro train wrote")
        return cls(path)

    def discard(self) -> None:
        """Remove a run that has trained nothing yet.

        Raises:
            BadRun: it has a checkpoint.
        """
        if self.has_checkpoint():
            raise BadRun("a run with checkpoints is not discarded", got=self.path)
        shutil.rmtree(self.path)

    @property
    def checkpoint_folder(self) -> Path:
        return self.path / "checkpoints"

    @property
    def configuration(self) -> dict[str, Any]:
        return _read_json(self.path / "config.json")

    @property
    def record(self) -> dict[str, Any]:
        file = self.path / "run.json"
        content = _read_json(file)
        wrong = misrecorded(content)
        if wrong is not None:
            what, got = f"{file} cannot be read", f"{wrong} in a form that no version writes"
            raise BadRun(what, got=got, remedy="restore it from a copy")
        return content

    def has_checkpoint(self) -> bool:
        """Whether at least one epoch was completed."""
        return bool(checkpoints(self.checkpoint_folder))

    def last_checkpoint(self) -> Path:
        """The newest complete checkpoint.

        Raises:
            BadRun: the run has none yet.
        """
        found = checkpoints(self.checkpoint_folder)
        if not found:
            raise BadRun("the run has no checkpoint", got=self.path, remedy="train at least one epoch first")
        return found[-1]

    def best_checkpoint(self) -> Path:
        """That of the epoch with the lowest test error in the log, the first of equals.

        Raises:
            BadRun: it was not kept: the run is cached, or of a version that kept the last ones only.
        """
        name = self.best_name()
        if name is None or self.checkpoint_folder / name not in checkpoints(self.checkpoint_folder):
            raise BadRun(
                "the run has no checkpoint of its best epoch",
                got=self.path,
                allowed="the last one",
                remedy="pass --checkpoint last",
            )
        return self.checkpoint_folder / name

    def best_name(self) -> str | None:
        """What the best epoch's checkpoint is called; None before the first epoch and in cached runs."""
        records = self.log()
        if not records or self.configuration.get("parallel") == "cached":  # which counts modules' epochs
            return None
        best = min(records, key=lambda record: record.test_error)
        return Checkpoint(best.epoch, best.test_error, {}).name

    def require_same(self, configuration: Mapping[str, Any]) -> None:
        """Refuse to go on with other settings than those that the run was started with."""
        stored = self.configuration
        names = [n for n in {**stored, **configuration} if stored.get(n) != configuration.get(n)]
        if names:
            changes = ", ".join(f"{n} {configuration.get(n)!r} (run: {stored.get(n)!r})" for n in names)
            raise BadRun(
                "the run has another configuration",
                got=changes,
                remedy="use its settings, or begin a new --output, with its weights: --initial-weights RUN",
            )

    def append(self, record: EpochRecord) -> None:
        """Add one line to the log; it is on the disk when this returns, so that no checkpoint outlives it.

        Raises:
            BadRun: the disk is full, or cannot be written.
        """
        self.append_line("log.jsonl", asdict(record))

    def append_line(self, name: str, values: Mapping[str, Any]) -> None:
        """Add one line to a file of lines; raises as `append`."""
        file = self.path / name
        try:
            with file.open("a") as stream:
                stream.write(json.dumps(values) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            sync_folder(self.path)
        except OSError as error:
            raise unwritten(file, error) from error

    def keep_lines(self, name: str, number: int) -> None:
        """Leave the first lines of a file only; old or new, never half of one. Raises as `append`."""
        file = self.path / name
        if not file.is_file():
            return
        try:
            _write(file, "".join(file.read_text().splitlines(keepends=True)[:number]))
        except OSError as error:
            raise unwritten(file, error) from error

    def log(self) -> list[EpochRecord]:
        """All epochs logged so far."""
        file = self.path / "log.jsonl"
        try:
            text = file.read_text() if file.is_file() else ""
        except (OSError, ValueError) as error:
            raise BadRun(f"{file} cannot be read", got=error, remedy="restore it from a copy") from error
        # a line without its end was being written when the run was killed
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [_epoch_record(file, number, line) for number, line in enumerate(lines, start=1)]

    def truncate_log(self, *, last_epoch: int) -> None:
        """Drop the lines of epochs after the checkpoint that a resumed run starts from."""
        kept = [record for record in self.log() if record.epoch <= last_epoch]
        file = self.path / "log.jsonl"
        try:
            _write(file, "".join(json.dumps(asdict(record)) + "\n" for record in kept))
        except OSError as error:
            raise unwritten(file, error) from error


def _is_unused(path: Path) -> bool:
    """Empty, or begun by a run that was killed before its first file was complete."""
    names = {entry.name for entry in path.iterdir()}
    begun = LOCK_FILE in names and names <= _BEGUN
    return not names or (begun and not any((path / "checkpoints").glob("*")))


def _write(file: Path, text: str) -> None:
    """A file that is old or new, never half of one, and on the disk when this returns."""
    temporary = file.with_name(f".{file.name}.partial")
    with temporary.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, file)
    sync_folder(file.parent)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise BadRun(f"{file} cannot be read", got=error) from error
    return content


def _epoch_record(file: Path, number: int, line: str) -> EpochRecord:
    try:
        values = json.loads(line)
        return EpochRecord(**{**values, "losses": tuple(values["losses"])})
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadRun(f"line {number} of {file} cannot be read", got=error, remedy="delete it") from error
