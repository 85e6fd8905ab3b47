"""A configuration run by several processes: how they meet, what must be alike, which engine they run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from infopro.data import ImageData, batch_sizes
from infopro.engines import Decoupled, Engine, OneProcess, Pipeline, Processes, joined
from infopro.errors import BadConfiguration, as_told_once
from infopro.local import LocalModel
from infopro.memory import PRECISIONS
from infopro.recipes._config import RunConfig
from infopro.recipes._fingerprint import data_hash, short_hash, source_hash
from infopro.recipes._stored import plain

__all__ = ["make_engine", "meet", "require_alike"]


@contextmanager
def meet(config: RunConfig, *, device: torch.device, timeout_seconds: float) -> Iterator[Processes | None]:
    """The processes that torchrun started, where the configuration wants several; else None.

    Raises:
        BadConfiguration: not started by torchrun, or in another number than the modules need.
    """
    if config.parallel in ("none", "cached"):
        _refuse_several(config)
        yield None
        return
    stages = None if config.parallel == "data" else config.num_modules
    with joined(num_stages=stages, device=device, timeout_seconds=timeout_seconds) as processes:
        yield processes


def _refuse_several(config: RunConfig) -> None:
    world = os.environ.get("WORLD_SIZE", "1")
    if world == "1":
        return
    error = BadConfiguration(
        "several processes would do the same work in the same folder",
        got=f"{world} processes with --parallel {config.parallel}",
        allowed="--parallel pipeline, data or decoupled",
        remedy="choose one of them, or start the command without torchrun",
    )
    raise as_told_once(error)


def require_alike(processes: Processes, config: RunConfig, data: ImageData) -> None:
    """Compare what the processes are about to do: code, versions, options, every image and label.

    Raises:
        BadConfiguration: they differ, or a batch is too small to be shared.
    """
    processes.require_same(
        {
            "infopro's source": source_hash(),
            "torch": str(torch.__version__),
            "configuration": short_hash(json.dumps(plain(config), sort_keys=True).encode()),
            "data": data_hash(data),
        }
    )
    sizes = batch_sizes(data.train, batch_size=config.batch_size, augmentation=data.augmentation)
    least = min(sizes) // processes.replicas
    if least < 2:
        raise BadConfiguration(
            "the smallest batch of an epoch leaves a process fewer than 2 images",
            got=f"{least} images for each of {processes.replicas}",
            remedy="raise --batch-size, or take fewer processes",
        )


def make_engine(
    config: RunConfig,
    local: LocalModel,
    example: Tensor,
    *,
    processes: Processes | None,
    queue: int,
    shard: bool,
    stop: Callable[[], bool],
) -> Engine:
    """The engine that runs a configuration's modules in this process."""
    if processes is None:
        return OneProcess(local, stop=stop)
    common: dict[str, Any] = {
        "example": example.contiguous(memory_format=torch.channels_last),
        "precision": PRECISIONS[config.precision],
        "queue": queue,
        "stop": stop,
    }
    if config.parallel == "decoupled":
        return Decoupled(local, processes, replay=config.replay, **common)
    return Pipeline(
        local,
        processes,
        synchronise=config.synchronise_batch_norm,
        gather=config.gather_contrast,
        shard=shard,
        **common,
    )
