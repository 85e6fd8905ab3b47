"""Which processes hold copies of the same module, and how each of them runs its copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.distributed as dist

from infopro.engines.parts_of_batches import gather_contrast
from infopro.engines.processes import Processes
from infopro.engines.programs import Programs
from infopro.engines.replicas import Replica, StageRoot, replicate, without_gradient
from infopro.engines.shards import shard
from infopro.engines.synced_batch_norm import synchronise_batch_norm
from infopro.local import LocalModel, LocalStage
from infopro.splitting.record import undisturbed
from infopro.types import Batch

__all__ = ["new_group", "replicas_of", "unused_parameters"]


def replicas_of(
    stages: Sequence[LocalStage],
    processes: Processes,
    unused: dict[int, tuple[str, ...]],
    *,
    synchronise: bool,
    gather: bool,
    shard_them: bool,
) -> tuple[dist.ProcessGroup | None, list[Replica]]:
    """The group of a module's replicas, and what runs each module here."""
    if processes.replicas == 1:
        return None, [_alone(stage) for stage in stages]
    # groups of their own: what losses and BatchNorm exchange must not queue behind gradients
    groups = [_groups_of_replicas(processes) for _ in range(3)]
    if synchronise:
        synchronise_batch_norm(stages, groups[1])
    for stage in stages:
        if gather:
            gather_contrast(stage, groups[1])
    runs: list[Replica]
    if shard_them:
        runs = [shard(stage, processes.mesh["data"]) for stage in stages]
    else:
        runs = [replicate(stage, groups[0], unused=unused.get(stage.context.index, ())) for stage in stages]
    return groups[2], runs


def _groups_of_replicas(processes: Processes) -> dist.ProcessGroup:
    """This process's group; every process makes all of them, in one order."""
    width = processes.replicas
    made = [
        new_group(list(range(stage * width, (stage + 1) * width)), processes)
        for stage in range(processes.num_stages)
    ]
    return made[processes.stage]


def unused_parameters(
    local: LocalModel, programs: Programs, example: torch.Tensor, stages: range
) -> dict[int, tuple[str, ...]]:
    """By module, the parameters that get no gradient: no reduction may wait for them."""
    found = {}
    batch = Batch(example, local.task.made_up_targets(example))
    flow = programs.start((example,), training=True)
    with undisturbed(local):
        for index in range(stages.stop):
            if index in stages:
                found[index] = without_gradient(local.stages[index], flow, batch)
            with torch.no_grad():
                flow = local.stages[index].part(flow)
    return found


def _alone(stage: LocalStage) -> Replica:
    root = StageRoot()
    return Replica(stage, root, root)


def new_group(ranks: list[int], processes: Processes) -> dist.ProcessGroup:
    """Every process must ask for every group; those outside of it get a group that they cannot use."""
    return cast(dist.ProcessGroup, dist.new_group(ranks, timeout=processes.timeout))
