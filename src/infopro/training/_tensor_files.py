"""Files of tensors with their hashes, and what makes files and folders outlive a loss of power."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from infopro.engines.shards import whole_tensor
from infopro.errors import BadRun

__all__ = [
    "Damaged",
    "damaged",
    "put_in_place",
    "read_tensors",
    "require_intact",
    "set_aside",
    "sync_folder",
    "unwritten",
    "write_tensors",
]


class Damaged(BadRun):
    """A checkpoint that is not as it was written; an older one may be."""


def write_tensors(file: Path, kind: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write a file that is on the disk when this returns, and describe it: kind, hash, names."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # contiguous copies: safetensors refuses strided and shared tensors
    whole = {name: whole_tensor(tensor.detach()) for name, tensor in tensors.items()}
    try:
        save_file({name: tensor.cpu().contiguous().clone() for name, tensor in whole.items()}, file)
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())
    except (SafetensorError, OSError) as error:
        file.unlink(missing_ok=True)  # half of one would take the space that others need
        raise unwritten(file, error) from error
    return {"kind": kind, "sha256": _sha256(file), "tensors": list(tensors)}


def read_tensors(
    folder: Path, files: Mapping[str, Any], kind: str, wanted: Collection[str]
) -> dict[str, Tensor]:
    """The `wanted` tensors among files of one kind; a file that holds other tensors only is not opened.

    Raises:
        BadRun: a file that is missing or was changed after it was written.
    """
    found: dict[str, Tensor] = {}
    for name, entry in files.items():
        if entry["kind"] != kind:
            continue
        # modules of several processes may share a buffer, which is then in several files
        needed = [tensor for tensor in entry["tensors"] if tensor in wanted and tensor not in found]
        if needed or not entry["tensors"]:
            found.update(_read(folder / name, entry["sha256"], needed))
    return found


def require_intact(folder: Path, files: Mapping[str, Any]) -> None:
    """Compare every file with its hash.

    Raises:
        Damaged: a file that is missing or was changed after it was written.
    """
    for name, entry in files.items():
        _require_hash(folder / name, entry["sha256"])


def damaged(file: Path) -> Damaged:
    """The error that names a file and what to do about it."""
    remedy = f"delete {file.parent}: the checkpoint before it is used then"
    return Damaged(f"{file} is damaged or missing", remedy=remedy)


def unwritten(file: Path, error: Exception) -> BadRun:
    """The error of a file that the disk did not take."""
    return BadRun(
        f"{file} cannot be written",
        got=str(error).splitlines()[0],
        remedy="free space on the disk and go on with --resume: the checkpoints before it are whole",
    )


def sync_folder(folder: Path) -> None:
    """Put the names that a folder holds on the disk; Windows does so by itself."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def set_aside(target: Path) -> Path:
    """Hide a folder that is to be removed: half of one never stands under its own name."""
    hidden = target.with_name(f".{target.name}.removed.partial")
    shutil.rmtree(hidden, ignore_errors=True)
    os.replace(target, hidden)
    return hidden


def put_in_place(partial: Path, target: Path) -> list[Path]:
    """Give a finished folder its name; what had that name before is hidden, for the caller to remove."""
    sync_folder(partial)
    hidden = [set_aside(target)] if target.exists() else []
    try:
        os.replace(partial, target)
    except OSError:
        for old in hidden:
            os.replace(old, target)
        raise
    sync_folder(target.parent)
    return hidden


def _read(file: Path, sha256: str, names: Iterable[str]) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    _require_hash(file, sha256)
    try:
        with safe_open(file, framework="pt") as stream:
            return {name: stream.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise damaged(file) from error


def _require_hash(file: Path, sha256: str) -> None:
    try:
        if _sha256(file) == sha256:
            return
    except (OSError, ValueError) as error:  # the latter of a name that no file can have
        raise damaged(file) from error
    raise damaged(file)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
