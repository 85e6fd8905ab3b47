"""One training step of a recipe on random images: memory, time, and what the plan says of it.

Also how many images several runs side by side train on, each second and together.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from gpu_execution import next_step, prepare
from gpu_jobs import Job
from gpu_training import Data, free, peak
from torch import Tensor

from infopro import models, recipes
from infopro.data import ImageData, ImageTensors, MaskTensors
from infopro.memory import PRECISIONS, Planner
from infopro.recipes import RunConfig, Session
from infopro.training.evaluation import autocast

__all__ = ["measure_step", "throughput"]

WARM_UP, ROUNDS = 4, 12


@dataclass(frozen=True)
class _Kind:
    """What random images stand in for."""

    shape: tuple[int, int, int]  # C, H, W where the configuration says nothing
    num_classes: int
    masks: bool = False


STAND_INS = {
    "cifar10": _Kind((3, 32, 32), 10),
    "digits-on-photos": _Kind((3, 32, 32), 10),
    "stl10": _Kind((3, 96, 96), 10),
    "imagenet": _Kind((3, 224, 224), 1000),
    "cityscapes": _Kind((3, 1024, 2048), 19, masks=True),
}


def measure_step(job: Job, *, device: torch.device, rounds: int = ROUNDS) -> dict[str, Any]:
    """Bytes and seconds of a step, the optimizer's included, after others have chosen the kernels."""
    free(device)
    job = replace(job, changed={**job.changed, "pretrained": False})
    config = job.config()
    data = random_data(config)
    prepared = prepare(job, data, device=device)
    if prepared.fallback is not None:
        raise RuntimeError(f"cannot be {job.execution}: {prepared.fallback}")
    session = prepared.session
    images, targets = _batch(data, config.batch_size, device)
    for _ in range(min(WARM_UP, rounds)):
        _step(session, images, targets)
    _synchronize(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)  # trying out kernels takes more than running them
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        _step(session, images, targets)
        _synchronize(device)
        seconds.append(time.perf_counter() - started)
    return {
        "compile_seconds": prepared.compile_seconds,
        "random_images": True,
        "image_shape": list(data.image_shape),
        "batch_size": config.batch_size,
        "checkpoint": config.checkpoint,
        "cuts": list(session.local.split.cuts),
        "step_seconds": statistics.median(seconds),
        "peak_bytes": peak(device),
        "planned_bytes": planned(config, session, data),
    }


def planned(config: RunConfig, session: Session, data: ImageData) -> int:
    """The peak that a plan predicts; no workspaces of convolutions are in it."""
    channels, *size = data.image_shape
    model = models.create(
        config.model, num_classes=data.num_classes, in_channels=channels, image_size=(size[0], size[1])
    )
    planner = Planner(
        model,
        (torch.empty(2, *data.image_shape, device="meta"),),
        objective=recipes.build_objective(config),
        task=copy.deepcopy(session.local.task).cpu(),
        optimizer=config.optimizer,
        precision=PRECISIONS[config.precision],
        on_cuda=session.device.type == "cuda",
    )
    fake = planner.build(list(session.local.split.cuts), config.checkpoint)
    return planner.track(fake, config.batch_size).peak


def random_data(config: RunConfig) -> ImageData:
    """Two images of noise in the form of a configuration's data set."""
    kind = STAND_INS[config.data]
    size = config.image_size if not isinstance(config.image_size, int) else (config.image_size,) * 2
    height, width = config.crop or size or kind.shape[1:]
    images = torch.randint(0, 256, (2, 3, height, width), generator=_generator(), dtype=torch.uint8)
    classes = torch.arange(2) % kind.num_classes
    masks = classes.to(torch.uint8)[:, None, None].expand(-1, height, width).contiguous()
    part = MaskTensors(images, masks) if kind.masks else ImageTensors(images, classes)
    return ImageData(
        name=f"noise for {config.data}",
        train=part,
        test=part,
        num_classes=kind.num_classes,
        class_names=tuple(map(str, range(kind.num_classes))),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        image_shape=(3, height, width),
    )


def throughput(
    job: Job, data: Data, *, device: torch.device, seconds: float, meet: Callable[[], object]
) -> dict[str, Any]:
    """Images a second of a run's loop, its tests included, from when all runs have warmed up.

    Args:
        meet: returns once every run that is measured beside this one has called it.
    """
    free(device)
    config = job.config()
    clock = _Clock(seconds, meet)
    prepared = prepare(job, data.of(config), device=device, stop=clock.over)
    recipes.fit(prepared.session, on_step=clock.step)
    _synchronize(device)
    elapsed = time.perf_counter() - clock.started
    if not clock.steps:
        raise RuntimeError(f"the run ended within {WARM_UP} steps: give it more epochs")
    return {
        **prepared.columns,
        "images_per_second": clock.steps * config.batch_size / elapsed,
        "seconds": elapsed,
        "peak_bytes": peak(device),
    }


class _Clock:
    """Counts steps between the meeting and the end."""

    def __init__(self, seconds: float, meet: Callable[[], object]):
        self._seconds, self._meet = seconds, meet
        self.started, self.steps, self._warm = float("inf"), 0, 0

    def step(self, epoch: int, done: int) -> None:
        next_step()
        self._warm += 1
        if self._warm == WARM_UP:
            self._meet()
            self.started = time.perf_counter()
        elif self._warm > WARM_UP:
            self.steps += 1

    def over(self) -> bool:
        return time.perf_counter() - self.started > self._seconds


def _batch(data: ImageData, batch_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    images = torch.rand(batch_size, *data.image_shape, generator=_generator())
    size = data.image_shape[1:] if data.has_masks else ()
    targets = torch.randint(0, data.num_classes, (batch_size, *size), generator=_generator())
    return images.to(device).contiguous(memory_format=torch.channels_last), targets.to(device)


def _step(session: Session, images: Tensor, targets: Tensor) -> None:
    session.local.train()
    next_step()
    session.optimizer.zero_grad(set_to_none=True)
    with autocast(session.device, PRECISIONS[session.config.precision]):
        session.local.backward(images, targets)
    session.optimizer.step()


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
