"""Run folders -> what they hold: configuration, record, log, analysis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infopro.analysis import Analysis
from infopro.analysis.files import has_analysis, read_analysis
from infopro.errors import BadRun
from infopro.recipes import RunConfig, from_plain
from infopro.training import RunFolder
from infopro.types import EpochRecord

__all__ = ["StoredRun", "read_runs"]


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredRun:
    """One run as its folder has it."""

    path: Path
    config: RunConfig
    record: Mapping[str, Any]  # of run.json
    records: tuple[EpochRecord, ...]  # one an epoch
    analysis: Analysis | None

    @property
    def cuts(self) -> tuple[str, ...]:
        """The blocks that end a module, whoever chose them."""
        return tuple(self.record.get("cuts", ()))


def read_runs(paths: Sequence[Path]) -> tuple[list[StoredRun], list[str]]:
    """The runs in these folders, each once, in the order given; and what was left out, as sentences.

    A folder that is no run itself stands for all runs in it, by name; of those, the ones without a finished
    epoch are left out.

    Raises:
        BadRun: no such folder, no run in it, a named run without a finished epoch, a damaged file.
    """
    found: dict[Path, StoredRun] = {}
    notes = []
    for path in paths:
        named = _is_run(path)
        folders = [path] if named else _runs_in(path)
        for folder in folders:
            run = _read(folder)
            if run.records:
                found.setdefault(folder.resolve(), run)
            elif named:
                raise _unfinished(folder)
            else:
                notes.append(f"{folder.name} has not finished an epoch yet, and is left out.")
    if not found:
        raise _unfinished(paths[0] if paths else Path())
    return list(found.values()), list(dict.fromkeys(notes))


def _unfinished(folder: Path) -> BadRun:
    return BadRun("no epoch is finished yet", got=folder, remedy="train at least one epoch first")


def _is_run(path: Path) -> bool:
    return (path / "config.json").is_file() and (path / "run.json").is_file()


def _runs_in(path: Path) -> list[Path]:
    if not path.is_dir():
        raise BadRun("the folder does not exist", got=path, remedy="pass a folder that infopro train wrote")
    found = list(_walk(path))
    if not found:
        raise BadRun(
            "the folder holds no run",
            got=path,
            remedy="pass a folder that infopro train wrote, or its parent",
        )
    return found


def _walk(path: Path) -> Iterator[Path]:
    """Runs below a folder; not those inside of runs."""
    for child in sorted(path.iterdir()):
        if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
            if _is_run(child):
                yield child
            else:
                yield from _walk(child)


def _read(path: Path) -> StoredRun:
    folder = RunFolder.open(path)
    return StoredRun(
        path=path,
        config=from_plain(folder.configuration),
        record=folder.record,
        records=tuple(folder.log()),
        analysis=read_analysis(path) if has_analysis(path) else None,
    )
