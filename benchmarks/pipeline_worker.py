"""One process of a measurement of `pipeline.py`, which starts it with a job as JSON and a folder."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pipeline_checks import accumulate, deviation, digests
from pipeline_cuts import search
from pipeline_jobs import Job
from pipeline_schedules import BackPropagation
from pipeline_training import (
    CPU,
    NUM_BATCHES,
    Runner,
    build,
    create,
    example,
    make_batches,
    measure,
    optimizer_of,
)
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import infopro
from infopro.engines import Phase, Pipeline, Processes, joined
from infopro.engines.timeline import StageTimeline, idle_shares, read_timelines
from infopro.local import LocalModel
from infopro.random_streams import step_seed
from infopro.training import describe_environment

TIMEOUT = 120.0  # seconds that a process waits for another


def alone(job: Job) -> Runner:
    """All modules in turn, in this process."""
    local, batches = build(job), make_batches(job)
    optimizer = optimizer_of(local.parameters())

    def step(number: int) -> None:
        images, targets = batches[number % NUM_BATCHES]
        optimizer.zero_grad(set_to_none=True)
        local.backward(images, targets, seed=step_seed(0, 1, number))
        optimizer.step()

    return Runner(local, step)


def run_alone(job: Job) -> dict[str, Any]:
    runner = alone(job)
    before = digests(runner.local)
    result = measure(job, runner)
    after = digests(runner.local)
    return {**result, "digests": after, "moved": sum(before[name] != after[name] for name in before)}


def run_at_once(job: Job) -> dict[str, Any]:
    """As many processes as there are, each of which trains for itself."""
    runner = alone(job)
    with joined(num_stages=None, device=CPU, timeout_seconds=TIMEOUT) as processes:
        result = measure(job, runner, lambda: processes.wait_for_all("start"))
        processes.wait_for_all("end")
    return result


def run_engine(job: Job) -> dict[str, Any]:
    """One process per module; with `kind` "replicas", each with all modules and a part of the batch."""
    local = build(job)
    stages = None if job.kind == "replicas" else job.processes
    with joined(num_stages=stages, device=CPU, timeout_seconds=TIMEOUT) as processes:
        engine = Pipeline(local, processes, example=example(), queue=job.queue)
        runner = _engine_runner(job, engine)
        result = measure(job, runner, lambda: processes.wait_for_all("start"))
        engine.finish()
        found = {"digests": digests(local, engine.names()), **deviation(job, local, engine.names())}
        idle = _idle(job, engine, processes)
    return {**result, **found, **idle}


def _engine_runner(job: Job, engine: Pipeline) -> Runner:
    total, steps = job.batch_size, job.warmup + job.steps + job.cooldown
    own = total // engine.replicas
    phase = Phase(1, True, sizes=(own,) * steps, totals=(total,) * steps)
    optimizer = optimizer_of(engine.parameters())
    works = engine.feed(phase, lambda: _shares(job, engine.replica, engine.replicas))

    def step(number: int) -> None:
        work = next(works)
        optimizer.zero_grad(set_to_none=True)
        engine.backward(work, seed=step_seed(0, 1, number))
        with engine.span("optimizer", number):
            optimizer.step()

    gradients = sum(p.nbytes for p in engine.parameters()) if engine.replicas > 1 else 0
    return Runner(
        engine.local,
        step,
        bytes_sent=lambda: engine.bytes_sent,
        images=own / total,
        gradients_reduced=gradients,
    )


def _shares(job: Job, replica: int, replicas: int) -> Iterator[tuple[Tensor, Tensor]]:
    for images, targets in cycle(make_batches(job)):
        yield images.chunk(replicas)[replica], targets.chunk(replicas)[replica]


def _idle(job: Job, engine: Pipeline, processes: Processes) -> dict[str, Any]:
    """Bubble and computing seconds per step, from the timed steps of all processes' timelines."""
    folder = Path(sys.argv[2]) / "timeline"
    engine.write_timeline(folder)
    processes.wait_for_all("timeline")
    timelines = [_timed(job, timeline) for timeline in read_timelines(folder)]
    if engine.replicas > 1:
        return {"idle": idle_shares(timelines).share}
    compute = [
        sum(s.end_ns - s.begin_ns for s in t.spans if s.kind in ("forward", "backward", "optimizer"))
        for t in timelines
    ]
    seconds = [nanoseconds / 1e9 / job.steps for nanoseconds in compute]
    return {"idle": idle_shares(timelines).share, "stage_seconds": seconds}


def _timed(job: Job, timeline: StageTimeline) -> StageTimeline:
    steps = range(job.warmup, job.warmup + job.steps)
    return replace(timeline, spans=tuple(span for span in timeline.spans if span.step in steps))


def run_schedule(job: Job) -> dict[str, Any]:
    """A pipeline of torch's over the same parts."""
    local, batches = build(job), make_batches(job)
    with joined(num_stages=job.processes, device=CPU, timeout_seconds=TIMEOUT) as processes:
        pipeline = BackPropagation(local, batches[0][0], schedule=job.schedule, microbatches=job.microbatches)
        optimizer, account = optimizer_of(pipeline.parameters()), pipeline.account

        def step(number: int) -> None:
            optimizer.zero_grad(set_to_none=True)
            pipeline.step(*batches[number % NUM_BATCHES])
            with account.working():
                optimizer.step()

        runner = Runner(local, step, bytes_sent=lambda: account.bytes_sent, busy=lambda: account.busy)
        result = measure(job, runner, lambda: processes.wait_for_all("start"))
        processes.wait_for_all("end")
    return {**result, **deviation(job, local, _names(local, pipeline.parameters()))}


def run_ddp(job: Job) -> dict[str, Any]:
    """torch's DistributedDataParallel of the whole network, each process with its part of the batch."""
    local = build(job)
    with joined(num_stages=None, device=CPU, timeout_seconds=TIMEOUT) as processes:
        network = DistributedDataParallel(local.model, gradient_as_bucket_view=True, broadcast_buffers=False)
        optimizer = optimizer_of(local.model.parameters())
        batches = _shares(job, dist.get_rank(), job.processes)

        def step(number: int) -> None:
            images, targets = next(batches)
            optimizer.zero_grad(set_to_none=True)
            local.task.loss(network(images), targets).backward()
            optimizer.step()

        gradients = sum(p.nbytes for p in local.model.parameters())
        runner = Runner(local, step, images=1 / job.processes, gradients_reduced=gradients)
        result = measure(job, runner, lambda: processes.wait_for_all("start"))
        processes.wait_for_all("end")
    return {**result, **deviation(job, local, _names(local, local.model.parameters()))}


def _names(local: LocalModel, parameters: Iterable[nn.Parameter]) -> set[str]:
    own: set[nn.Parameter] = set(parameters)
    return {name for name, parameter in local.named_parameters() if parameter in own}


def run_accumulated(job: Job) -> dict[str, Any]:
    accumulate(job)
    return {}


def run_environment(job: Job) -> dict[str, Any]:
    """Who is here; whether the network and the objective exist."""
    infopro.objectives.from_name(job.objective)
    parameters = sum(parameter.numel() for parameter in create(job).parameters())
    return {**describe_environment(CPU), "parameters": parameters}


KINDS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "environment": run_environment,
    "search": search,
    "alone": run_alone,
    "at once": run_at_once,
    "pipeline": run_engine,
    "replicas": run_engine,
    "schedule": run_schedule,
    "ddp": run_ddp,
    "accumulated": run_accumulated,
}


def first_line(error: BaseException) -> str:
    """What went wrong at the bottom of it, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    kind = "" if isinstance(error, infopro.errors.InfoProError) else f"{type(error).__name__}: "
    return kind + (lines[0].strip() if lines else "no message")


def main() -> None:
    described, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    job = Job(**{**described, "cuts": tuple(described["cuts"])})
    result: dict[str, Any]
    try:
        result = KINDS[job.kind](job)
    except Exception as error:
        result = {"error": first_line(error), "at": time.time()}
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(result))
    sys.exit("error" in result)


if __name__ == "__main__":
    main()
