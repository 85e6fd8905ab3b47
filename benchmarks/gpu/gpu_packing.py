"""Unfinished runs as a few files that can be copied from machine to machine: one folder, no folders in it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

from infopro.training import RunFolder

__all__ = ["pack", "unpack"]

INDEX = "runs.json"
PIECE_BYTES = 15 * 2**20


def pack(runs: Path, folder: Path) -> int:
    """Write the runs that have a checkpoint into `folder`, in place of those that were there; how many.

    The index changes last: a kill at any time leaves the old pieces or the new ones.
    """
    content, number = _archive(runs)
    digest = hashlib.sha256(content).hexdigest()
    index = folder / INDEX
    if index.exists() and json.loads(index.read_text())["sha256"] == digest:
        return number
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for place in range(0, len(content), PIECE_BYTES):
        names.append(f"runs-{digest[:8]}-{place // PIECE_BYTES}.tar")
        (folder / names[-1]).write_bytes(content[place : place + PIECE_BYTES])
    partial = folder / f"{INDEX}.partial"
    partial.write_text(json.dumps({"sha256": digest, "pieces": names}) + "\n")
    os.replace(partial, index)
    for old in folder.glob("runs-*.tar"):
        if old.name not in names:
            old.unlink()
    return number


def unpack(folder: Path, runs: Path) -> list[str]:
    """Lay out what `pack` wrote into a folder; the names of the runs. Runs that are there already stay.

    Raises:
        ValueError: pieces that are missing or damaged.
    """
    index = folder / INDEX
    if not index.exists():
        return []
    stored = json.loads(index.read_text())
    pieces = [folder / name for name in stored["pieces"]]
    content = b"".join(piece.read_bytes() for piece in pieces if piece.is_file())
    if hashlib.sha256(content).hexdigest() != stored["sha256"]:
        raise ValueError(f"the pieces that {index} lists are not whole: copy them again, or delete it")
    if not pieces:
        return []
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = archive.getmembers()
        found = sorted({member.name.partition("/")[0] for member in members})
        new = [member for member in members if not (runs / member.name.partition("/")[0]).exists()]
        for member in new:
            _lay_out(archive, member, runs)
    return found


def _lay_out(archive: tarfile.TarFile, member: tarfile.TarInfo, runs: Path) -> None:
    """One file below `runs`, by hand: Python 3.11 has `extractall(filter=...)` from its 4th release on."""
    content, target = archive.extractfile(member), (runs / member.name).resolve()
    if content is None or not target.is_relative_to(runs.resolve()):
        raise ValueError(f"{member.name!r} is no file of a run: the pieces are not of `pack`")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content.read())


def _archive(runs: Path) -> tuple[bytes, int]:
    stream, number = io.BytesIO(), 0
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path in sorted(runs.iterdir()) if runs.is_dir() else []:
            number += _add(archive, path)
    return (stream.getvalue() if number else b""), number


def _add(archive: tarfile.TarFile, path: Path) -> bool:
    """One run: its settings, its log and its newest checkpoint, read before anything is written."""
    try:
        newest = RunFolder(path).last_checkpoint()
        files = [path / "config.json", path / "run.json", path / "log.jsonl", *sorted(newest.iterdir())]
        contents = {file: file.read_bytes() for file in files if file.is_file()}
    except Exception:  # no checkpoint yet, or its process replaced it just now: next time
        return False
    for file, content in contents.items():
        entry = tarfile.TarInfo(file.relative_to(path.parent).as_posix())
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return True
