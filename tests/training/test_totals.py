"""Sums that are interrupted and go on: added up in the order of an undisturbed epoch, to the last bit."""

from types import SimpleNamespace

import pytest
import torch

from infopro.training.totals import EpochSums, Totals
from infopro.types import StepOutput

# added up in another order, they give another sum
LOSSES = [1e16, 1.0, 1.0, -1e16, 3.0, 1.0]


class Replicas:
    """As much of an engine as sums need: one of several replicas of one module, which see each other."""

    stages = range(1)
    is_last = True
    local = SimpleNamespace(
        task=SimpleNamespace(num_counts=1, counts=lambda logits, targets: torch.ones(1, dtype=torch.float64))
    )

    def __init__(self, replica, replicas):
        self.replica, self.replicas = replica, replicas
        self.everyones = None

    def each(self, values):
        return [values] if self.everyones is None else self.everyones


def step(totals, loss, number):
    phase = SimpleNamespace(epoch=1)
    batch = SimpleNamespace(targets=None)
    work = SimpleNamespace(size=1, total=2, step=number, phase=phase, batch=batch)
    totals.add(StepOutput(({"total": torch.tensor(loss, dtype=torch.float64)},), torch.empty(0)), work)


def summed(parts, replicas):
    """The sums after parts of an epoch, each by new processes that begin with what the last ones left."""
    sums = EpochSums()
    for part in parts:
        engines = [Replicas(replica, replicas) for replica in range(replicas)]
        totals = [Totals(engine, sums) for engine in engines]
        for number, loss in enumerate(part):
            for replica, own in enumerate(totals):
                step(own, loss * (1 + replica), number)
        own = [[*map(float, t._losses["0"].values()), *t._own_counts()] for t in totals]
        if replicas > 1:
            for engine in engines:
                engine.everyones = own
        sums = totals[0].sums(1.0)
    return sums


@pytest.mark.parametrize("replicas", [1, 2, 3])
@pytest.mark.parametrize("place", range(1, len(LOSSES)))
def test_interrupted_sums_are_those_of_an_undisturbed_epoch(place, replicas):
    whole, parts = summed([LOSSES], replicas), summed([LOSSES[:place], LOSSES[place:]], replicas)
    assert parts.losses == whole.losses and parts.counts == whole.counts and parts.count == whole.count
    assert parts.replicas == whole.replicas and bool(whole.replicas) == (replicas > 1)
    assert whole.counts == [len(LOSSES) * replicas]


def test_another_number_of_replicas_keeps_the_sum():
    two = summed([LOSSES[4:]], 2)
    assert [two.of_replica("0", "total", replica, 2) for replica in range(2)] == [4.0, 8.0]
    assert [two.of_replica("0", "total", replica, 3) for replica in range(3)] == [12.0, 0.0, 0.0]
    assert two.of_replica("0", "total", 0, 1) == 12.0
