"""Cuts that share the seconds of a step evenly: found by timing the stages of neighbouring cuts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from pipeline_jobs import Job
from pipeline_training import build, create, example, make_batches, make_task, optimizer_of
from torch import Tensor

import infopro
from infopro.local import LocalModel
from infopro.memory import choose_cuts
from infopro.splitting import Flow

__all__ = ["END_TO_END", "search"]

Cuts = tuple[str, ...]
Timer = Callable[[], list[float]]  # seconds of each stage in one step
END_TO_END = "end-to-end"
MOST_CUTS = 12  # that are timed


def search(job: Job) -> dict[str, Any]:
    """Start where `balance="time"` cuts, by operations, and move on while the slowest stage gets faster.

    With 0 steps nothing is timed. The objective "end-to-end" stands for stages without heads, whose gradients
    go from stage to stage.
    """
    heads = job.objective != END_TO_END
    job = replace(job, objective=job.objective if heads else "greedy")
    model, batch = create(job), make_batches(job)[0]
    start = choose_cuts(
        model,
        (batch[0],),
        num_modules=job.num_modules,
        objective=infopro.objectives.from_name(job.objective),
        task=make_task(),
        balance="time",
    )
    if not job.steps:
        return {"start": start, "cuts": start, "seconds": [], "tried": []}

    def timer(cuts: Cuts) -> Timer:
        local = build(replace(job, cuts=cuts))
        make = _local_timer if heads else _chain_timer
        return make(local, *batch)

    units = infopro.splitting.blocks(model, example()).units
    best, tried = _climb(tuple(start), units, timer, job.steps)
    listed = [{"cuts": list(cuts), "seconds": seconds} for cuts, seconds in tried.items()]
    return {"start": start, "cuts": list(best), "seconds": tried[best], "tried": listed}


def _climb(
    start: Cuts, units: Cuts, timer: Callable[[Cuts], Timer], steps: int
) -> tuple[Cuts, dict[Cuts, list[float]]]:
    tried = _timed([start], timer, steps)
    best = start
    while len(tried) < MOST_CUTS:
        fresh = [cuts for cuts in _neighbours(best, units, tried[best]) if cuts not in tried]
        if not fresh:
            break
        tried |= _timed([best, *fresh], timer, steps)  # the best one again, under the same conditions
        winner = min([best, *fresh], key=lambda cuts: max(tried[cuts]))
        if winner == best:
            break
        best = winner
    return best, tried


def _timed(candidates: list[Cuts], timer: Callable[[Cuts], Timer], steps: int) -> dict[Cuts, list[float]]:
    """Medians over the steps, which the candidates take by turns."""
    timers = {cuts: timer(cuts) for cuts in candidates}
    taken: dict[Cuts, list[list[float]]] = {cuts: [] for cuts in candidates}
    for step in range(steps + 1):
        for cuts, one in timers.items():
            seconds = one()
            if step:  # the first one warms up
                taken[cuts].append(seconds)
    return {
        cuts: [statistics.median(stage) for stage in zip(*rows, strict=True)] for cuts, rows in taken.items()
    }


def _neighbours(cuts: Cuts, units: Cuts, seconds: list[float]) -> list[Cuts]:
    """The slowest stage gives a block to a neighbour, or one in the direction of the fastest stage."""
    slowest, fastest = seconds.index(max(seconds)), seconds.index(min(seconds))
    places = [units.index(cut) for cut in cuts]
    moves = [{slowest - 1: 1}, {slowest: -1}]
    moves.append(
        {k: -1 for k in range(slowest, fastest)}
        if slowest < fastest
        else {k: 1 for k in range(fastest, slowest)}
    )
    found = []
    for move in moves:
        if min(move, default=-1) < 0 or max(move) >= len(cuts):
            continue
        moved = [place + move.get(k, 0) for k, place in enumerate(places)]
        if moved == sorted(set(moved)) and moved[0] >= 0 and moved[-1] < len(units) - 1:
            found.append(tuple(units[place] for place in moved))
    return list(dict.fromkeys(found))


def _local_timer(local: LocalModel, images: Tensor, targets: Tensor) -> Timer:
    """Each stage with its heads, its loss and its optimizer's step: what its process will do."""
    optimizers = [optimizer_of(stage.parameters()) for stage in local.stages]

    def one() -> list[float]:
        ends = [time.perf_counter()]

        def finish(index: int) -> None:
            optimizers[index].step()
            optimizers[index].zero_grad(set_to_none=True)
            ends.append(time.perf_counter())

        local.backward(images, targets, on_stage_done=finish)
        return [end - begin for begin, end in pairwise(ends)]

    return one


def _chain_timer(local: LocalModel, images: Tensor, targets: Tensor) -> Timer:
    """Each stage without heads, its gradient coming from the next one."""
    optimizers = [optimizer_of(stage.part.parameters()) for stage in local.stages]

    def one() -> list[float]:
        seconds = [0.0] * len(local.stages)
        flow, left = local.start((images,)), []
        for index, stage in enumerate(local.stages):
            started = time.perf_counter()
            inputs = _leaves(flow) if index else flow
            flow = stage.part(inputs)
            left.append((inputs, flow))
            seconds[index] = time.perf_counter() - started
        for index in reversed(range(len(left))):
            started = time.perf_counter()
            _differentiate(local, left, index, targets)
            optimizers[index].step()
            optimizers[index].zero_grad(set_to_none=True)
            seconds[index] += time.perf_counter() - started
        return seconds

    return one


def _leaves(flow: Flow) -> Flow:
    values = {n: t.detach().requires_grad_(t.is_floating_point()) for n, t in flow.values.items()}
    return replace(flow, values=values)


def _differentiate(local: LocalModel, left: list[tuple[Flow, Flow]], index: int, targets: Tensor) -> None:
    _, flow = left[index]
    if index == len(left) - 1:
        local.task.loss(local.stages[-1].part.result(flow), targets).backward()
        return
    received = {n: t.grad for n, t in left[index + 1][0].values.items() if t.grad is not None}
    torch.autograd.backward([flow.values[n] for n in received], list(received.values()))
