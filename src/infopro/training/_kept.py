"""Which checkpoints a folder holds, and which of them are whole."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from infopro.errors import BadRun
from infopro.training._state_file import read_state
from infopro.training._tensor_files import Damaged, require_intact, sync_folder

__all__ = ["KEPT", "checkpoints", "newest_intact", "remove_partial", "rename_damaged"]

KEPT = 2  # checkpoints that stay, where nobody says how many
_NAME = re.compile(r"epoch-(\d+)(?:-step-(\d+))?")


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    found = []
    for path in folder.glob("epoch-*"):
        match = _NAME.fullmatch(path.name)
        if match and (path / "state.json").is_file():
            found.append((int(match[1]), int(match[2] or 0), path))
    return [path for _, _, path in sorted(found)]


def remove_partial(folder: Path) -> None:
    """Remove what runs that were killed left unfinished; no process may be writing."""
    for path in folder.glob(".epoch-*.partial"):
        shutil.rmtree(path)


def newest_intact(folder: Path) -> tuple[Path | None, dict[Path, Damaged]]:
    """The newest checkpoint of which every file is as it was written, and what is wrong with newer ones.

    Every file of those looked at is read once. None, if the folder holds no checkpoint.

    Raises:
        BadRun: there are checkpoints, and all are damaged: the message lists them. One is of another format.
    """
    passed_over: dict[Path, Damaged] = {}
    for path in reversed(checkpoints(folder)):
        try:
            _, files, _ = read_state(path)
            require_intact(path, files)
        except Damaged as error:
            passed_over[path] = error
        else:
            return path, passed_over
    if passed_over:
        raise BadRun(
            f"every checkpoint in {folder} is damaged",
            got="; ".join(str(error).partition(";")[0] for error in passed_over.values()),
            remedy="restore one from a copy, or start anew with another --output",
        )
    return None, {}


def rename_damaged(paths: Iterable[Path]) -> None:
    """Take checkpoints out of the way as `NAME.damaged`, which no command reads or removes."""
    for path in paths:
        aside = path.with_name(f"{path.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(path, aside)
        sync_folder(path.parent)
