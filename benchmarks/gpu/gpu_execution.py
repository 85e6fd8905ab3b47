"""How the steps of a run are executed: as they are written, compiled, or replayed as CUDA graphs."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from gpu_jobs import Job

from infopro import recipes
from infopro.data import ImageData, batch_sizes
from infopro.memory import PRECISIONS
from infopro.recipes import Session
from infopro.training.evaluation import autocast

__all__ = ["COMPILATIONS", "Prepared", "next_step", "prepare"]

REASON_LENGTH = 200  # letters
# an epoch has two sizes of batches: a graph for each is faster than one for all sizes
COMPILATIONS: Mapping[str, dict[str, Any]] = {
    "compiled": {"dynamic": False},
    "graphed": {"dynamic": False, "mode": "reduce-overhead"},
}


@dataclass(frozen=True)
class Prepared:
    """A session that is ready to run, and how it will."""

    session: Session
    job: Job  # eager, where the execution that was asked for did not work
    compile_seconds: float | None = None
    fallback: str | None = None  # why it is eager

    @property
    def columns(self) -> dict[str, Any]:
        """Of a row."""
        found = {"execution": self.job.execution, "compile_seconds": self.compile_seconds}
        return found if self.fallback is None else {**found, "fallback": self.fallback}


def prepare(job: Job, data: ImageData, *, device: torch.device, **options: Any) -> Prepared:
    """A job's session, compiled by running a step of every size; eager where that fails."""
    config = job.config()
    if job.execution == "eager":
        return Prepared(recipes.prepare(config, data, device=device, **options), job)
    started = time.perf_counter()
    try:
        session = recipes.prepare(config, data, device=device, **options)
        session.local.compile(**COMPILATIONS[job.execution])
        _try_out(session)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # no compiler, or anything that one may say of a network
        session = None  # its memory, before the next one takes as much
        said = " ".join(str(error).split())  # of many lines, the first of which names no cause
        reason = f"{type(error).__name__}: {said[:REASON_LENGTH]}"
    else:
        return Prepared(session, job, round(time.perf_counter() - started, 2))
    plain = replace(job, execution="eager")
    return Prepared(recipes.prepare(plain.config(), data, device=device, **options), plain, fallback=reason)


def next_step(*done: object) -> None:
    """Tell CUDA graphs that what a step has computed may be overwritten by the next one's; an `on_step`.

    All modules of a step are graphs of one generation: a module reads what the one before it left.
    """
    torch.compiler.cudagraph_mark_step_begin()


def _try_out(session: Session) -> None:
    """A step of each size on images of the mean colour; weights and buffers are as before it."""
    local, config, data = session.local, session.config, session.data
    before = copy.deepcopy(local.state_dict())
    sizes = batch_sizes(data.train, batch_size=config.batch_size, augmentation=data.augmentation)
    for size in dict.fromkeys(sizes):
        images = torch.zeros(size, *data.image_shape, device=session.device)
        targets = torch.arange(size, device=session.device) % data.num_classes
        if data.has_masks:
            targets = targets[:, None, None].expand(-1, *data.image_shape[1:]).contiguous()
        local.train()
        next_step()
        with autocast(session.device, PRECISIONS[config.precision]):
            local.backward(images.contiguous(memory_format=torch.channels_last), targets, seed=0)
        session.optimizer.zero_grad(set_to_none=True)
    local.load_state_dict(before)
