"""Checkpoints: a folder of safetensors and JSON with hashes, renamed into place when complete.

One process writes it with `save_checkpoint`. Where K processes own a module each, each of them calls
`write_shard`, and one of them, given all that they returned, `publish`. Who wrote it does not matter to
`load_checkpoint`: a process reads the tensors that it holds.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from infopro.engines.shards import placed, whole_tensor
from infopro.errors import BadRun
from infopro.local import LocalModel
from infopro.training._kept import KEPT, checkpoints, newest_intact, remove_partial, rename_damaged
from infopro.training._optimizer_state import matching_groups, pack, parameter_names, parameter_of, restore
from infopro.training._state_file import Checkpoint, read_state, write_state
from infopro.training._tensor_files import (
    put_in_place,
    read_tensors,
    set_aside,
    sync_folder,
    unwritten,
    write_tensors,
)

__all__ = [
    "KEPT",
    "Checkpoint",
    "checkpoints",
    "load_checkpoint",
    "load_local",
    "load_model",
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
    keep: int = KEPT,
    spare: Collection[str] = (),
) -> Path:
    """Write a checkpoint as a whole or not at all; older ones beyond `keep` are removed afterwards.

    Args:
        spare: names of older ones that stay, such as that of the best epoch.

    Raises:
        BadRun: the disk is full, or cannot be written; nothing half-written stays.
    """
    partial = _partial(folder, state)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shard = write_shard(folder, local, optimizer, state, shard="", names=local.state_dict().keys())
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
    contents, record = _contents(local, optimizer, names)
    partial = _partial(folder, state)
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritten(partial, error) from error
    files = {}
    for kind, content in contents.items():
        file = partial / f"{kind}{shard and '-'}{shard}.safetensors"
        files[file.name] = write_tensors(file, kind, content)
    return {"files": files, "optimizer": record}


def take_part(local: LocalModel, optimizer: torch.optim.Optimizer, *, names: Collection[str]) -> None:
    """What the other replicas call while one writes: it needs their shares of what is sharded."""
    contents, _ = _contents(local, optimizer, names)
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


def load_checkpoint(path: Path, local: LocalModel, optimizer: torch.optim.Optimizer) -> Checkpoint:
    """Restore what this process holds of network, heads and optimizer.

    Tensors on the meta device are other processes': they are neither touched nor read. Nothing is changed
    unless everything fits.

    Raises:
        BadRun: a file that is missing, was changed after it was written, or belongs to another network.
    """
    state, files, stored = read_state(path)
    modules = _modules(local)
    for kind, module in modules.items():
        _require_names(path, kind, module, files)
    names = parameter_names(local, optimizer)
    groups = matching_groups(stored["groups"], local, optimizer)
    contents = {kind: _read_module(path, kind, module, files) for kind, module in modules.items()}
    held = {name for group in names for name in group}
    wanted = {key for key in _listed(files, "optimizer") if parameter_of(key) in held}
    tensors = read_tensors(path, files, "optimizer", wanted)
    for kind, module in modules.items():
        _load_into(module, contents[kind])
    restore(optimizer, names=names, groups=groups, tensors=tensors, values=stored["values"])
    return state


def load_model(path: Path, model: nn.Module) -> Checkpoint:
    """Restore the network alone: all that evaluation needs.

    Raises:
        BadRun: as `load_checkpoint`.
    """
    return _load(path, {"model": model})


def load_local(path: Path, local: LocalModel) -> Checkpoint:
    """Restore network and heads, without an optimizer: all that an analysis needs.

    Raises:
        BadRun: as `load_checkpoint`.
    """
    return _load(path, _modules(local))


def _load(path: Path, modules: Mapping[str, nn.Module]) -> Checkpoint:
    state, files, _ = read_state(path)
    for kind, module in modules.items():
        _require_names(path, kind, module, files)
    contents = {kind: _read_module(path, kind, module, files) for kind, module in modules.items()}
    for kind, module in modules.items():
        _load_into(module, contents[kind])
    return state


def _contents(
    local: LocalModel, optimizer: torch.optim.Optimizer, names: Collection[str]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensors by kind of file and name, in one order in all replicas; what else the optimizer keeps."""
    tensors, record = pack(local, optimizer, names)
    contents = {kind: _named(module, kind, names) for kind, module in _modules(local).items()}
    return {**contents, "optimizer": tensors}, record


def _modules(local: LocalModel) -> dict[str, nn.Module]:
    return {"model": local.model, "heads": local.heads}


def _named(module: nn.Module, kind: str, names: Collection[str]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if f"{kind}.{name}" in names}


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


def _listed(files: Mapping[str, Any], kind: str) -> set[str]:
    return {name for entry in files.values() if entry["kind"] == kind for name in entry["tensors"]}


def _here(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if not tensor.is_meta}


def _require_names(path: Path, kind: str, module: nn.Module, files: Mapping[str, Any]) -> None:
    listed = _listed(files, kind)
    missing, unexpected = _here(module).keys() - listed, listed - module.state_dict().keys()
    found = [f"{what} {_some(kind, n)}" for what, n in (("no", missing), ("also", unexpected)) if n]
    if found:
        raise _another_network(path, " but ".join(found))


def _read_module(path: Path, kind: str, module: nn.Module, files: Mapping[str, Any]) -> dict[str, Tensor]:
    here = _here(module)
    tensors = read_tensors(path, files, kind, here.keys())
    for name, tensor in tensors.items():
        if tensor.shape != here[name].shape:
            shapes = f"{list(tensor.shape)} instead of {list(here[name].shape)}"
            raise _another_network(path, f"{kind}.{name} of shape {shapes}")
    return tensors


def _load_into(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    content = module.state_dict()  # not a new mapping: this one knows which version of each layer it is of
    for name in list(content):
        if name in tensors:
            content[name] = placed(tensors[name], content[name])
        else:
            del content[name]
    module.load_state_dict(content, strict=False)


def _some(kind: str, names: Iterable[str], *, most: int = 3) -> str:
    full = [f"{kind}.{name}" for name in sorted(names)]
    return ", ".join(full[:most]) + (f" and {len(full) - most} more" if len(full) > most else "")


def _another_network(path: Path, got: str) -> BadRun:
    return BadRun(
        f"the checkpoint {path} belongs to another network",
        got=got,
        remedy="use the recipe and options that its config.json names",
    )
