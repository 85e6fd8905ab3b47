"""From a checkpoint back to network, heads, optimizer and averaged weights; by any number of processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from infopro.errors import BadRun
from infopro.local import LocalModel
from infopro.training._optimizer_state import matching_groups, parameter_names, parameter_of, restore
from infopro.training._state_file import Checkpoint, read_state
from infopro.training._stored_modules import (
    AVERAGES,
    listed,
    load_into,
    modules_of,
    read_module,
    require_names,
    steps_in,
)
from infopro.training._tensor_files import read_tensors
from infopro.training.averaging import WeightAverages

__all__ = ["load_checkpoint", "load_local", "load_model"]


def load_checkpoint(
    path: Path,
    local: LocalModel,
    optimizer: torch.optim.Optimizer,
    *,
    averages: WeightAverages | None = None,
) -> Checkpoint:
    """Restore what this process holds of network, heads, optimizer and averaged weights.

    Tensors on the meta device are other processes': they are neither touched nor read. Nothing is changed
    unless everything fits.

    Raises:
        BadRun: a file that is missing, was changed after it was written, or belongs to another network; no
            averaged weights where `averages` are to be restored.
    """
    state, files, stored = read_state(path)
    modules = modules_of(local)
    kinds = modules if averages is None else {**modules, AVERAGES: averages.model}
    if averages is not None:
        _require_averages(path, files)
    for kind, module in kinds.items():
        require_names(path, kind, module, files)
    names = parameter_names(local, optimizer)
    groups = matching_groups(stored["groups"], local, optimizer)
    contents = {kind: read_module(path, kind, module, files) for kind, module in kinds.items()}
    held = {name for group in names for name in group}
    wanted = {key for key in listed(files, "optimizer") if parameter_of(key) in held}
    tensors = read_tensors(path, files, "optimizer", wanted)
    for kind, module in modules.items():
        load_into(module, contents[kind])
    if averages is not None:
        averages.load(contents[AVERAGES], steps=steps_in(files, AVERAGES))
    restore(optimizer, names=names, groups=groups, tensors=tensors, values=stored["values"])
    return state


def load_model(path: Path, model: nn.Module, *, averaged: bool = True) -> Checkpoint:
    """Restore the network alone: all that evaluation needs.

    Args:
        averaged: its averaged weights, where the run kept them; else, and with False, those that it trained.

    Raises:
        BadRun: as `load_checkpoint`.
    """
    return _load(path, {"model": model}, averaged=averaged)


def load_local(path: Path, local: LocalModel, *, averaged: bool = True) -> Checkpoint:
    """Restore network and heads, without an optimizer: all that an analysis needs.

    Args:
        averaged: as in `load_model`. Heads are never averaged: they are those of the last step.

    Raises:
        BadRun: as `load_checkpoint`.
    """
    return _load(path, modules_of(local), averaged=averaged)


def _load(path: Path, modules: Mapping[str, nn.Module], *, averaged: bool) -> Checkpoint:
    state, files, _ = read_state(path)
    if averaged and steps_in(files, AVERAGES):
        modules = {AVERAGES if kind == "model" else kind: module for kind, module in modules.items()}
    for kind, module in modules.items():
        require_names(path, kind, module, files)
    contents = {kind: read_module(path, kind, module, files) for kind, module in modules.items()}
    for kind, module in modules.items():
        load_into(module, contents[kind])
    return state


def _require_averages(path: Path, files: Mapping[str, Any]) -> None:
    if not listed(files, AVERAGES):
        raise BadRun(
            f"the checkpoint {path} has no averaged weights",
            remedy="go on without average_weights, as the run was trained, or start anew",
        )
