"""What each replica of a module keeps for itself within an epoch: BatchNorm's statistics and their averages.

Before a test and at the end of an epoch they become one, see `settle`. A run that is stopped in between must
go on with each replica's own: what becomes of the mean differs from the mean of what becomes of them in the
last bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from infopro.engines import Engine
from infopro.training._state_file import read_state
from infopro.training._stored_modules import listed
from infopro.training._tensor_files import read_tensors
from infopro.training.averaging import WeightAverages, in_place

__all__ = ["REPLICAS", "apart", "load_apart"]

REPLICAS = "replicas"  # a kind of file beside model, heads and optimizer


@torch.no_grad()
def apart(engine: Engine, averages: WeightAverages | None) -> dict[str, Tensor]:
    """Every replica's, by replica and name, on all of them; empty where there is one. All call it."""
    if engine.replicas == 1:
        return {}
    own = {name: tensor.double().flatten().clone() for name, tensor in _own(engine, averages)}
    everyones = engine.each(torch.cat(list(own.values())).tolist() if own else [])
    sizes = [len(tensor) for tensor in own.values()]
    return {
        f"{_prefix(replica, engine)}{name}": piece
        for replica, values in enumerate(everyones)
        for name, piece in zip(
            own, torch.split(torch.tensor(values, dtype=torch.float64), sizes), strict=True
        )
    }


@torch.no_grad()
def load_apart(path: Path, engine: Engine, averages: WeightAverages | None) -> None:
    """Give this replica what it had; with another number of replicas all keep the mean, as it was loaded.

    Raises:
        BadRun: a damaged file.
    """
    _, files, _ = read_state(path)
    prefix = _prefix(engine.replica, engine)
    wanted = {name for name in listed(files, REPLICAS) if name.startswith(prefix)}
    if engine.replicas == 1 or not wanted:
        return
    found = read_tensors(path, files, REPLICAS, wanted)
    for name, tensor in _own(engine, averages):
        kept = found.get(f"{prefix}{name}")
        if kept is not None:
            tensor.copy_(kept.view(tensor.shape))


def _prefix(replica: int, engine: Engine) -> str:
    return f"{replica + 1}-of-{engine.replicas}/"


def _own(engine: Engine, averages: WeightAverages | None) -> Iterator[tuple[str, Tensor]]:
    """The buffers that `Engine.settle` averages: the network's, and in their place the averaged ones."""
    yield from _buffers("own", engine)
    if averages is not None:
        with in_place(averages):
            yield from _buffers("averaged", engine)


def _buffers(what: str, engine: Engine) -> Iterator[tuple[str, Tensor]]:
    for index in engine.stages:
        for name, buffer in engine.local.stages[index].named_buffers():
            if buffer.is_floating_point():
                yield f"{what}/{index}.{name}", buffer
