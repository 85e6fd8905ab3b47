"""What every measurement of `pipeline.py` trains, on which batches, and how a run of steps is measured."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from pipeline_jobs import Job
from torch import Tensor, nn

import infopro
from infopro.local import LocalModel
from infopro.training import make_optimizer

__all__ = [
    "CPU",
    "NUM_BATCHES",
    "Runner",
    "build",
    "create",
    "example",
    "make_batches",
    "make_task",
    "measure",
    "optimizer_of",
]

CPU = torch.device("cpu")
SHAPE = (3, 32, 32)
NUM_CLASSES = 10
NUM_BATCHES = 4  # different ones, so that a mix-up of steps would show
PROBE_BATCH = 2  # images of the example that networks are recorded with


@dataclass
class Runner:
    """A way to train, seen from one process."""

    local: LocalModel
    step: Callable[[int], object]
    bytes_sent: Callable[[], int] = lambda: 0
    busy: Callable[[], float] | None = None  # seconds, where they are counted
    images: float = 1.0  # share of each batch that this process counts for
    gradients_reduced: int = 0  # bytes per step that a ring of all processes adds up


def create(job: Job) -> nn.Module:
    torch.manual_seed(0)
    return infopro.models.create(job.model, num_classes=NUM_CLASSES).to(memory_format=torch.channels_last)


def make_task() -> infopro.tasks.Task:
    return infopro.tasks.Classification(num_classes=NUM_CLASSES)


def example() -> Tensor:
    return torch.zeros(PROBE_BATCH, *SHAPE).contiguous(memory_format=torch.channels_last)


def build(job: Job) -> LocalModel:
    """The same weights in every process; without cuts, the whole network end to end."""
    whole = not job.cuts
    return infopro.localize(
        create(job),
        example(),
        num_modules=1 if whole else None,
        cuts=None if whole else job.cuts,
        objective=infopro.objectives.EndToEnd() if whole else infopro.objectives.from_name(job.objective),
        task=make_task(),
    )


def make_batches(job: Job) -> list[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(0)
    images = torch.rand(NUM_BATCHES, job.batch_size, *SHAPE, generator=random)
    labels = torch.randint(0, NUM_CLASSES, (NUM_BATCHES, job.batch_size), generator=random)
    return [
        (batch.contiguous(memory_format=torch.channels_last), own)
        for batch, own in zip(images, labels, strict=True)
    ]


def optimizer_of(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return make_optimizer("sgd", parameters, learning_rate=0.01, weight_decay=1e-4)


def measure(job: Job, runner: Runner, ready: Callable[[], object] = lambda: None) -> dict[str, Any]:
    """Run a job's steps; time, bytes and busy seconds are those between the warm-up and the cool-down."""

    def note() -> tuple[float, int, float]:
        return time.perf_counter(), runner.bytes_sent(), runner.busy() if runner.busy else 0.0

    before, marks = high_water(), []
    ready()
    started = time.perf_counter()
    for number in range(job.warmup + job.steps + job.cooldown):
        if number in (job.warmup, job.warmup + job.steps):
            marks.append(note())
        runner.step(number)
    marks.append(note())
    (began, sent, busy), (ended, sent_then, busy_then) = marks[:2]
    seconds = ended - began
    # a ring passes (K - 1) / K of all gradients on twice
    ring = 2 * (job.processes - 1) / job.processes * runner.gradients_reduced
    return {
        "seconds": seconds,
        "images": runner.images * job.batch_size * job.steps,
        "whole_seconds": marks[-1][0] - started,
        "memory": high_water() - before,
        "bytes_per_step": (sent_then - sent) / job.steps + ring,
        "idle": 1 - (busy_then - busy) / seconds if runner.busy else None,
    }


def high_water() -> int:
    """Most bytes that this process was resident with."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
