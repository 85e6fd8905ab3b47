"""Checkpoints: a folder of safetensors and JSON with hashes, renamed into place when complete.

One process writes it with `save_checkpoint`. Where K processes own a module each, each of them calls
`write_shard`, and one of them, given all that they returned, `publish`. Who wrote it does not matter when it
is restored: a process reads the tensors that it holds.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infopro.engines.shards import whole_tensor
from infopro.errors import BadRun
from infopro.local import LocalModel
from infopro.training._kept import KEPT, checkpoints, newest_intact, remove_partial, rename_damaged
from infopro.training._optimizer_state import pack
from infopro.training._replica_state import REPLICAS
from infopro.training._state_file import Checkpoint, write_state
from infopro.training._stored_modules import AVERAGES, modules_of
from infopro.training._tensor_files import (
    put_in_place,
    set_aside,
    sync_folder,
    unwritten,
    write_tensors,
)
from infopro.training.averaging import WeightAverages

__all__ = [
    "KEPT",
    "Checkpoint",
    "checkpoints",
    "newest_intact",
    "publish",
    "remove_partial",
    "rename_damaged",
    "save_checkpoint",
    "take_part",
    "write_shard",
]


def save_checkpoint(
    folder: Path,
    local: LocalModel,
    optimizer: torch.optim.Optimizer,
    state: Checkpoint,
    *,
    averages: WeightAverages | None = None,
    replicas: Mapping[str, Tensor] | None = None,
    keep: int = KEPT,
    spare: Collection[str] = (),
) -> Path:
    """Write a checkpoint as a whole or not at all; older ones beyond `keep` are removed afterwards.

    Args:
        replicas: what each replica keeps for itself, see `Position`.
        spare: names of older ones that stay, such as that of the best epoch.

    Raises:
        BadRun: the disk is full, or cannot be written; nothing half-written stays.
    """
    partial = _partial(folder, state)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        kept: dict[str, Any] = {"averages": averages, "replicas": replicas}
        names = local.state_dict().keys()
        shard = write_shard(folder, local, optimizer, state, **kept, shard="", names=names)
    except BadRun:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return publish(folder, state, [shard], keep=keep, spare=spare)


def write_shard(
    folder: Path,
    local: LocalModel,
    optimizer: torch.optim.Optimizer,
    state: Checkpoint,
    *,
    averages: WeightAverages | None = None,
    replicas: Mapping[str, Tensor] | None = None,
    shard: str,
    names: Collection[str],
) -> dict[str, Any]:
    """Write one process's part of a checkpoint into a hidden folder, and return what `publish` needs of it.

    Args:
        shard: tells the processes' files apart, such as "1-of-4"; "" for one process.
        names: what this process owns, as in `local.state_dict()`; no other tensor is touched.

    Returns:
        Plain values that JSON can hold.

    Raises:
        BadRun: the disk is full, or cannot be written.
    """
    contents, record = _contents(local, optimizer, averages, names)
    if replicas:
        contents[REPLICAS] = dict(replicas)
    partial = _partial(folder, state)
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritten(partial, error) from error
    files = {}
    for kind, content in contents.items():
        file = partial / f"{kind}{shard and '-'}{shard}.safetensors"
        files[file.name] = write_tensors(file, kind, content)
        if kind == AVERAGES and averages is not None:
            files[file.name]["steps"] = averages.steps
    return {"files": files, "optimizer": record}


def take_part(
    local: LocalModel,
    optimizer: torch.optim.Optimizer,
    *,
    averages: WeightAverages | None = None,
    names: Collection[str],
) -> None:
    """What the other replicas call while one writes: it needs their shares of what is sharded."""
    contents, _ = _contents(local, optimizer, averages, names)
    for content in contents.values():
        for tensor in content.values():
            whole_tensor(tensor)


def publish(
    folder: Path,
    state: Checkpoint,
    shards: Sequence[Mapping[str, Any]],
    *,
    keep: int = KEPT,
    spare: Collection[str] = (),
) -> Path:
    """Make one checkpoint of what `write_shard` returned in every process, once all of them have returned.

    Older ones beyond `keep` are removed afterwards, but for those whose names are in `spare`.

    Raises:
        BadRun: a file that a process wrote is not in the folder; the disk is full, or cannot be written.
    """
    partial, target = _partial(folder, state), folder / state.name
    files, stored = _merged(shards)
    _require_files(partial, files)
    try:
        write_state(partial, state, files=files, optimizer=stored)
        hidden = put_in_place(partial, target)
    except BadRun:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise unwritten(target, error) from error
    hidden += [set_aside(old) for old in checkpoints(folder)[:-keep] if old.name not in spare]
    sync_folder(folder)
    for path in hidden:
        shutil.rmtree(path)
    return target


def _contents(
    local: LocalModel,
    optimizer: torch.optim.Optimizer,
    averages: WeightAverages | None,
    names: Collection[str],
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensors by kind of file and name, in one order in all replicas; what else the optimizer keeps."""
    tensors, record = pack(local, optimizer, names)
    contents = {kind: _named(module.state_dict(), kind, names) for kind, module in modules_of(local).items()}
    if averages is not None:
        contents[AVERAGES] = _named(averages.state_dict(), "model", names)
    return {**contents, "optimizer": tensors}, record


def _named(tensors: Mapping[str, Tensor], kind: str, names: Collection[str]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if f"{kind}.{name}" in names}


def _partial(folder: Path, state: Checkpoint) -> Path:
    return folder / f".{state.name}.partial"


def _merged(shards: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    files: dict[str, Any] = {}
    values: dict[str, Any] = {}
    groups: list[Any] = []
    for shard in shards:
        files.update(shard["files"])
        values.update(shard["optimizer"]["values"])
        groups += shard["optimizer"]["groups"]
    return files, {"values": values, "groups": groups}


def _require_files(partial: Path, files: Collection[str]) -> None:
    """All of them, and no other: a run of another number of processes may have been killed here before."""
    there = {file.name for file in partial.iterdir()} if partial.is_dir() else set()
    if not there.issuperset(files):
        absent = ", ".join(sorted(set(files) - there))
        raise BadRun(
            f"the checkpoint {partial} is incomplete",
            got=f"no {absent}",
            remedy="let every process write to the same folder",
        )
    for name in there.difference(files):
        (partial / name).unlink()
