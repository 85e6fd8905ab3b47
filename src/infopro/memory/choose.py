"""Chooses the cuts: the exact min-max partition by saved bytes or operations, or equal depth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from infopro.errors import BadConfiguration, BadSplit, NotReplayable
from infopro.memory.costs import Costs, measure_costs
from infopro.memory.partition import best_partition
from infopro.objectives import Objective
from infopro.splitting.blocks import FEW, TIERS, Tier, blocks_in, blocks_of
from infopro.splitting.depth import equal_depth, equal_depth_cuts
from infopro.splitting.fake import FakeNetwork, RealNetwork, data_dependence
from infopro.splitting.program import resized
from infopro.splitting.survey import Survey, survey
from infopro.tasks import Task

__all__ = ["Balance", "CutChooser", "Granularity", "choose_cuts", "chooser_for"]

Balance = Literal["memory", "time", "depth"]
Granularity = Literal["block", "any"]
_WORTH = 0.9  # cuts between elements that pass several tensors on must lower the largest module this far


def choose_cuts(
    model: nn.Module,
    inputs: tuple[Any, ...],
    *,
    num_modules: int,
    objective: Objective,
    task: Task,
    balance: Balance = "memory",
    granularity: Granularity = "block",
) -> list[str]:
    """The K - 1 names of the blocks that should end a module.

    Args:
        balance: "memory": the largest number of bytes that one module saves for its backward pass, its
            heads and loss
            included, is as small as it can be. "time": so is the largest number of forward operations.
            "depth":
            every module has the same number of blocks.
        granularity: "block" for blocks as users know them, "any" for the ends of all modules.

    Raises:
        BadSplit: K below 1, or more modules than blocks.
        BadConfiguration: an unknown balance or granularity.
    """
    _check(balance, granularity)
    if num_modules == 1:
        return []
    if balance == "depth" and granularity == "block":
        return equal_depth_cuts(model, inputs, num_modules)
    chooser = chooser_for(model, inputs, objective=objective, task=task)
    return chooser.cuts(num_modules, balance=balance, granularity=granularity)


def chooser_for(model: nn.Module, inputs: tuple[Any, ...], *, objective: Objective, task: Task) -> CutChooser:
    """A chooser that has watched a fake twin of the network, or where that is impossible the network."""
    try:
        return CutChooser(FakeNetwork(model), inputs, objective=objective, task=task)
    except NotReplayable:  # forward reads values: it can only be watched with real ones, so with few
        return CutChooser(RealNetwork(model), resized(inputs, 2), objective=objective, task=task)


class CutChooser:
    """Surveys a network once and answers for any K.

    Raises:
        NotReplayable: the network is a fake one, and its forward reads values of tensors.
    """

    def __init__(
        self,
        network: FakeNetwork | RealNetwork,
        inputs: tuple[Any, ...],
        *,
        objective: Objective,
        task: Task,
        precision: torch.dtype = torch.float32,
    ):
        self._objective, self._task, self._precision = objective, task, precision
        self._network, self._model = network, network.model
        self._inputs = network.inputs(inputs)
        self._run = self._survey()
        self._blocks = {tier: blocks_of(self._model, self._run, tier) for tier in TIERS}
        self._costs: dict[tuple[str, ...], Costs] = {}

    def cuts(
        self, num_modules: int, *, balance: Balance = "memory", granularity: Granularity = "block"
    ) -> list[str]:
        """The cuts for K modules.

        Raises:
            BadSplit: K below 1, or more modules than blocks.
        """
        if num_modules == 1:
            return []
        tiers = self._tiers(num_modules, granularity)
        if balance == "depth":
            return equal_depth(self._blocks[tiers[0]], num_modules=num_modules)
        return self._even(tiers, num_modules, balance)

    def segments(self, num_segments: int) -> list[str]:
        """The ends of all but the last of K consecutive stretches that save equally much, without heads.

        Raises:
            BadSplit: K below 1, or more segments than blocks.
        """
        tiers = self._tiers(num_segments, "block")
        return self._even(tiers, num_segments, "memory", heads=False) if num_segments > 1 else []

    def largest(
        self, num_modules: int, *, balance: Balance = "memory", granularity: Granularity = "block"
    ) -> float:
        """The most bytes that one of K modules saves for its backward pass, at the example's batch size."""
        cuts = self.cuts(num_modules, balance=balance, granularity=granularity)
        points = next(
            points for points in (*self._costs, self._blocks["any"].units[:-1]) if {*cuts} <= {*points}
        )
        cost = self._costs_of(points).bytes_between(points)
        return _largest(cost, [points.index(cut) for cut in cuts], len(points))

    @property
    def units(self) -> tuple[str, ...]:
        """The blocks as users know them, the stem included."""
        return blocks_in(self._model, self._run).units

    def recomputation(self) -> dict[str, tuple[float, float]]:
        """For each of `units` the bytes that it saves, and the forward operations that a second run costs."""
        points = self.units[:-1]
        costs = self._costs_of(points)
        saved, operations = (f(points, heads=False) for f in (costs.bytes_between, costs.flops_between))
        return {name: (saved(i - 1, i), operations(i - 1, i)) for i, name in enumerate(self.units)}

    @property
    def most_modules(self) -> int:
        """The largest K at block granularity."""
        return max(len(self._blocks[tier].units) for tier in self._tiers(1, "block"))

    def _tiers(self, num_modules: int, granularity: Granularity) -> list[Tier]:
        """The sets of blocks that are fine enough for K modules, coarsest first."""
        tiers: list[Tier] = ["any"] if granularity == "any" else ["chain", "dense"]
        if granularity == "block" and max(len(self._blocks[t].units) for t in tiers) < FEW:
            tiers.append("any")
        most = max(len(self._blocks[tier].units) for tier in tiers)
        if not 1 <= num_modules <= most:
            raise BadSplit(
                "the network does not have as many blocks as modules were asked for",
                got=f"num_modules={num_modules}",
                allowed=f"1 to {most}",
                remedy="ask for fewer modules, pass granularity='any', or name finer cuts with cuts=[...]",
            )
        return [tier for tier in tiers if len(self._blocks[tier].units) >= num_modules]

    def _even(
        self, tiers: Sequence[Tier], num_modules: int, balance: Balance, *, heads: bool = True
    ) -> list[str]:
        best, whole, largest = self._partition(tiers[0], num_modules, balance, heads)
        for tier in tiers[1:]:
            finer, finer_whole, cost = self._partition(tier, num_modules, balance, heads)
            if (finer_whole, -cost) > (whole, -_WORTH * largest):
                best, whole, largest = finer, finer_whole, cost
        return best

    def _partition(
        self, tier: Tier, num_modules: int, balance: Balance, heads: bool
    ) -> tuple[list[str], bool, float]:
        """The cuts, whether every module trains all that is in it, and the largest cost."""
        points = self._blocks[tier].units[:-1]  # the last module has a block, too
        costs = self._costs_of(points)
        between = costs.bytes_between if balance == "memory" else costs.flops_between
        cost, whole = between(points, heads=heads), costs.whole(points)

        def allowed(start: int, end: int) -> float:
            return cost(start, end) if not heads or whole(start, end) else math.inf

        sizes = {"num_points": len(points), "num_modules": num_modules}
        try:
            chosen, complete = best_partition(allowed, **sizes), True
        except ValueError:
            chosen, complete = best_partition(cost, **sizes), False
        return [points[index] for index in chosen], complete, _largest(cost, chosen, len(points))

    def _costs_of(self, points: tuple[str, ...]) -> Costs:
        if points not in self._costs:
            network = self._network
            inputs = network.inputs(self._inputs)
            with network.mode:
                targets = self._task.made_up_targets(inputs[0])
            with torch.autocast("cpu", torch.bfloat16, enabled=self._precision == torch.bfloat16):
                self._costs[points] = measure_costs(
                    network,
                    inputs,
                    targets,
                    names=points,
                    objective=self._objective,
                    task=network.copy(self._task),
                )
        return self._costs[points]

    def _survey(self) -> Survey:
        with data_dependence(), self._network.mode:
            return survey(self._model, self._inputs)


def _largest(cost: Callable[[int, int], float], chosen: Sequence[int], num_points: int) -> float:
    edges = [-1, *chosen, num_points]
    return max((cost(i, j) for i, j in itertools.pairwise(edges)), default=math.inf)


def _check(balance: str, granularity: str) -> None:
    for name, value, allowed in (
        ("balance", balance, ("memory", "time", "depth")),
        ("granularity", granularity, ("block", "any")),
    ):
        if value not in allowed:
            raise BadConfiguration(f"unknown {name}", got=repr(value), allowed=", ".join(allowed))
