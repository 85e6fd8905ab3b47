"""What a checkpoint says of the run and of its own files, with a checksum."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from infopro.errors import BadRun
from infopro.training._state_form import misshapen
from infopro.training._tensor_files import Damaged, damaged, unwritten

__all__ = ["Checkpoint", "read_state", "write_state"]

_FORMAT = 2


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of the run: `epoch` epochs and `step` steps of the next are done.

    `totals` are plain sums over those steps.
    """

    epoch: int
    best_test_error: float
    configuration: dict[str, Any]
    step: int = 0
    totals: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name; names sort as time does."""
        return f"epoch-{self.epoch:04d}" + (f"-step-{self.step:06d}" if self.step else "")


_FIELDS = [field.name for field in fields(Checkpoint)]


def write_state(
    folder: Path, state: Checkpoint, *, files: Mapping[str, Any], optimizer: Mapping[str, Any]
) -> None:
    """Write `state.json`; it is on the disk when this returns."""
    record = {"format": _FORMAT, **vars(state), "files": files, "optimizer": optimizer}
    file = folder / "state.json"
    try:
        with file.open("w") as stream:
            json.dump({**record, "checksum": _checksum(record)}, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise unwritten(file, error) from error


def read_state(path: Path) -> tuple[Checkpoint, dict[str, Any], dict[str, Any]]:
    """State, description of the tensor files, and what of the optimizer is no tensor.

    Raises:
        Damaged: a `state.json` that is missing or was changed after it was written.
        BadRun: one of another format.
    """
    record = _read(path)
    checksum = record.pop("checksum", None)
    if checksum is not None and checksum != _checksum(record):
        raise damaged(path / "state.json")
    if record.get("format") != _FORMAT:
        known = "a format that this version does not know" if "format" in record else "an earlier format"
        raise BadRun(
            f"the checkpoint {path} has {known}", remedy="use the version that wrote it, or start anew"
        )
    missing = {*_FIELDS, "files", "optimizer"} - record.keys() | ({"checksum"} if checksum is None else set())
    if missing:
        raise Damaged(f"the checkpoint {path} is incomplete", got=f"no {', '.join(sorted(missing))}")
    wrong = misshapen(record)
    if wrong is not None:
        raise Damaged(
            f"the checkpoint {path} cannot be read", got=f"{wrong} in a form that no version writes"
        )
    return Checkpoint(**{name: record[name] for name in _FIELDS}), record["files"], record["optimizer"]


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads((path / "state.json").read_text())
        if not isinstance(record, dict):
            raise ValueError("state.json is not a JSON object")
    except (OSError, ValueError, RecursionError) as error:  # the last of brackets by the thousand
        raise Damaged(
            f"the checkpoint {path} cannot be read", got=error, remedy="resume from an older one"
        ) from error
    return record


def _checksum(record: Mapping[str, Any]) -> str:
    """Of the values: what JSON reads is what was written, so both ends compute the same."""
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()
