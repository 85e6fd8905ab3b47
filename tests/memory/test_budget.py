"""What a memory budget is answered with."""

import pytest
import torch

import infopro
from infopro.errors import BadConfiguration
from infopro.memory import DoesNotFit, format_bytes, measure, parse_bytes, plan
from infopro.memory.budget import _last_within
from infopro.memory.planner import Planner
from infopro.memory.recomputing import fewest, order
from infopro.models import cifar_resnet
from infopro.objectives import DGL, Greedy, InfoPro

TASK = infopro.tasks.Classification(num_classes=10)
SMALL = torch.empty(2, 3, 32, 32, device="meta")


def test_a_budget_is_answered_with_the_smallest_k():
    model, options = cifar_resnet(14, 10), {"batch_size": 256, "objective": Greedy()}
    rows = plan(model, SMALL, num_modules=(2, 3), **options)
    for k in (2, 3):
        budget = rows.local(k).step.peak
        assert rows.local(k - 1).step.peak > budget if k > 2 else rows.end_to_end.step.peak > budget
        answer = plan(model, SMALL, num_modules=[], memory=budget, **options).answer
        assert answer.num_modules == k and f"K = {k} is the smallest" in answer.reason
    fits = plan(model, SMALL, num_modules=[], memory="10GiB", **options).answer
    assert fits.num_modules == 1 and "end to end" in fits.reason
    nothing = plan(model, SMALL, num_modules=[], memory="4MiB", **options).answer
    assert nothing.num_modules is None and "nothing fits into 4.00 MiB at batch size 256" in nothing.reason
    alone = plan(model, SMALL, num_modules=[], memory="1MB", **options).answer
    assert alone.num_modules is None and "parameters and the optimizer state alone need" in alone.reason


def test_as_few_blocks_run_again_as_a_budget_needs():
    model, images = cifar_resnet(20, 10), torch.rand(16, 3, 32, 32)
    planner = Planner(model, (images,), objective=Greedy(), task=TASK)
    none, least = (planner.local(3, 16, checkpoint)[1].peak for checkpoint in ("none", "blocks"))
    budget, by_worth = (none + least) // 2, order(planner, 16, 3)
    chosen = fewest(planner, by_worth, lambda some: planner.local(3, 16, some)[1].peak <= budget)
    assert sorted(by_worth) == sorted(planner.chooser.units) and 0 < len(chosen) < len(by_worth)
    assert set(chosen) == set(by_worth[: len(chosen)]), "those that are worth most"
    assert planner.local(3, 16, chosen)[1].peak <= budget
    assert planner.local(3, 16, by_worth[: len(chosen) - 1])[1].peak > budget, "one less is too few"


def test_a_budget_decides_by_itself():
    with pytest.raises(BadConfiguration, match="memory decides by itself what is checkpointed"):
        infopro.localize(
            *(cifar_resnet(20, 10), torch.rand(4, 3, 32, 32)),
            memory="8GiB",
            checkpoint="blocks",
            objective=DGL(),
            task=TASK,
        )


def test_the_largest_batch_is_the_largest():
    model = cifar_resnet(20, 10)
    options = {"num_modules": [4], "objective": Greedy()}
    budget = 60 * 2**20
    found = plan(model, SMALL, batch_size="largest", memory=budget, **options)
    whole, local = found.rows
    assert whole.batch_size < local.batch_size
    for row in found.rows:
        assert row.step.peak <= budget
        above = plan(model, SMALL, batch_size=row.batch_size + 1, **options)
        same = above.end_to_end if row.num_modules == 1 else above.local(4)
        assert same.step.peak > budget
    with pytest.raises(DoesNotFit, match=r"K = 4 does not fit into 3.00 MiB"):
        plan(model, SMALL, batch_size="largest", memory="3MiB", **options)


@pytest.mark.parametrize(
    ("peak", "most"),
    [
        (lambda size: 1000 + 37 * size, 5),
        (lambda size: 512 * -(-(1000 + 3 * size) // 512), 22),
        (lambda size: 100 + 3 * size + size * size // 50, 16),
        (lambda size: 1000 * size if size < 100 else 10**7 + size, 8),
        (lambda size: 7, 12),
    ],
    ids=["line", "steps", "bent", "jump", "flat"],
)
@pytest.mark.parametrize("budget", [3000, 4097, 98_765, 10**7 + 500])
def test_the_largest_size_is_found_in_few_steps(peak, most, budget):
    tried = []

    def counted(size):
        tried.append(size)
        return peak(size)

    found = _last_within(counted, budget, low=2, at_low=peak(2))
    assert peak(found) <= budget and (found == 1 << 20 or peak(found + 1) > budget)
    assert len(tried) <= most and len(tried) == len(set(tried))


def test_localize_finds_the_k_that_fits():
    model, images = cifar_resnet(14, 10), torch.rand(64, 3, 32, 32)
    peak = plan(model, images, num_modules=[3], objective=DGL(), task=TASK).local(3).step.peak
    local = infopro.localize(model, images, memory=peak, objective=DGL(), task=TASK)
    assert local.split.num_modules == 3
    with pytest.raises(DoesNotFit, match=r"nothing fits into 4.00 MiB"):
        infopro.localize(model, images, memory="4MiB", objective=DGL(), task=TASK)


def test_sizes_are_read_and_written():
    sizes = {"8GiB": 8 * 2**30, "500 MB": 500_000_000, "1.5k": None, "2tib": 2 * 2**40, 4096: 4096, "12B": 12}
    for text, size in sizes.items():
        if size is not None:
            assert parse_bytes(text) == size
    assert [format_bytes(n) for n in (0, 999, 1000, 10 * 2**20, 123 * 2**20, 2**40)] == [
        *("0 B", "999 B", "0.98 KiB", "10.0 MiB", "123 MiB", "1024 GiB"),
    ]


def test_localize_runs_blocks_again_where_nothing_else_fits():
    images, labels = torch.rand(64, 3, 32, 32), torch.arange(64) % 10
    local = infopro.localize(cifar_resnet(20, 10), images, memory="36MiB", objective=InfoPro(), task=TASK)
    assert 0 < len(local.split.recomputed) < 10, "some of ten blocks"
    assert "nothing fits without recomputation; K = 4 does where" in local.split.notes[0]
    assert measure(local, images, labels).peak <= 36 * 2**20
