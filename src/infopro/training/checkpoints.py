"""Checkpoints: a folder of safetensors and JSON with hashes, renamed into place when complete."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infopro.errors import BadRun
from infopro.local import LocalModel

__all__ = ["Checkpoint", "checkpoints", "load_checkpoint", "load_model", "save_checkpoint"]

_TENSOR_FILES = ("model", "heads", "optimizer")


@dataclass(frozen=True)
class Checkpoint:
    """What stands in a checkpoint's `state.json`."""

    epoch: int
    best_test_error: float
    configuration: dict[str, Any]


def save_checkpoint(
    folder: Path, local: LocalModel, optimizer: torch.optim.Optimizer, state: Checkpoint, *, keep: int = 2
) -> Path:
    """Write `folder/epoch-NNNN` as a whole or not at all; older ones beyond `keep` are removed afterwards."""
    from safetensors.torch import save_file

    target = folder / f"epoch-{state.epoch:04d}"
    partial = folder / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors, numbers = _optimizer_state(optimizer)
    contents = {"model": local.model.state_dict(), "heads": local.heads.state_dict(), "optimizer": tensors}
    for name, content in contents.items():
        save_file(_storable(content), partial / f"{name}.safetensors")
    hashes = {name: _sha256(partial / f"{name}.safetensors") for name in contents}
    record = {**vars(state), "optimizer": numbers, "sha256": hashes}
    _write_synced(partial / "state.json", json.dumps(record, indent=1))
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first."""
    return sorted(p for p in folder.glob("epoch-*") if (p / "state.json").is_file())


def load_checkpoint(path: Path, local: LocalModel, optimizer: torch.optim.Optimizer) -> Checkpoint:
    """Restore network, heads and optimizer.

    Raises:
        BadRun: a file that is missing, was changed after it was written, or belongs to another network.
    """
    record = _read_state(path)
    model, heads, tensors = (_read_tensors(path, name, record) for name in _TENSOR_FILES)
    _load_into(local.model, model, path)
    _load_into(local.heads, heads, path)
    _restore_optimizer(optimizer, tensors, record["optimizer"])
    return Checkpoint(record["epoch"], record["best_test_error"], record["configuration"])


def load_model(path: Path, model: torch.nn.Module) -> Checkpoint:
    """Restore the network alone: all that evaluation needs."""
    record = _read_state(path)
    _load_into(model, _read_tensors(path, "model", record), path)
    return Checkpoint(record["epoch"], record["best_test_error"], record["configuration"])


def _storable(content: dict[str, Any]) -> dict[str, Tensor]:
    """Contiguous copies: safetensors refuses strided and shared tensors."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in content.items()}


def _optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            (tensors if isinstance(value, Tensor) else numbers)[f"{index}.{name}"] = value
    groups = [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]]
    return tensors, {
        "values": numbers,
        "groups": groups,
        "sizes": [len(g["params"]) for g in state["param_groups"]],
    }


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], numbers: dict[str, Any]
) -> None:
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *numbers["values"].items()]:
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    current = optimizer.state_dict()["param_groups"]
    if [len(group["params"]) for group in current] != numbers["sizes"]:
        raise BadRun(
            "the checkpoint's optimizer belongs to another network", remedy="resume with the run's own recipe"
        )
    groups = [{**old, "params": new["params"]} for old, new in zip(numbers["groups"], current, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                # the strides of the parameter, as a new buffer has them: files hold contiguous tensors only
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _load_into(module: torch.nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise BadRun(
            f"the checkpoint {path} belongs to another network",
            got=str(error).splitlines()[-1].strip(),
            remedy="use the recipe and options that its config.json names",
        ) from error


def _read_state(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((path / "state.json").read_text())
        missing = {"epoch", "best_test_error", "configuration", "optimizer", "sha256"} - record.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise BadRun(
            f"the checkpoint {path} cannot be read", got=error, remedy="resume from an older one"
        ) from error
    if missing:
        raise BadRun(f"the checkpoint {path} is incomplete", got=f"no {', '.join(sorted(missing))}")
    return record


def _read_tensors(path: Path, name: str, record: dict[str, Any]) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    file = path / f"{name}.safetensors"
    if not file.is_file() or _sha256(file) != record["sha256"].get(name):
        raise BadRun(
            f"{file} is damaged or missing", remedy=f"delete {path}: the checkpoint before it is used then"
        )
    return load_file(file)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_synced(file: Path, text: str) -> None:
    with file.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
