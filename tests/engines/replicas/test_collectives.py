"""Collectives with gradients, and buffers that are averaged in one piece.

Functions named `on_ranks_...` run in both processes of `conftest.py`.
"""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor.debug import CommDebugMode

from infopro.engines.collectives import (
    average_buffers,
    broadcast_from_first,
    gather_rows,
    sizes_of_parts,
    sum_over_ranks,
)
from infopro.engines.parts_of_batches import gather_contrast
from infopro.objectives import InfoPro, supervised_contrastive
from infopro.tasks import Classification
from infopro.types import Batch, StageContext


def on_ranks_sum():
    rank = dist.get_rank()
    own = torch.tensor([1.0, 2.0]).mul(rank + 1).requires_grad_()
    total = sum_over_ranks(own, dist.group.WORLD)
    (total * (rank + 1)).sum().backward()
    return total.tolist(), own.grad.tolist(), own.tolist()


def test_the_gradient_of_a_sum_is_the_sum_of_the_gradients(ranks):
    expected = [([3.0, 6.0], [3.0, 3.0], [1.0, 2.0]), ([3.0, 6.0], [3.0, 3.0], [2.0, 4.0])]
    assert ranks(on_ranks_sum) == expected


def on_ranks_gather():
    rank = dist.get_rank()
    rows = (10.0 * rank + torch.arange(2 + rank)[:, None]).requires_grad_()
    sizes = sizes_of_parts(rows, dist.group.WORLD)
    gathered = gather_rows(rows, sizes, dist.group.WORLD)
    (gathered * torch.arange(5.0)[:, None] * (rank + 1)).sum().backward()
    return sizes, gathered.flatten().tolist(), rows.grad.flatten().tolist()


def test_rows_are_gathered_in_order_with_gradients_from_all(ranks):
    first, second = ranks(on_ranks_gather)
    assert first[:2] == second[:2] == ([2, 3], [0.0, 1.0, 10.0, 11.0, 12.0])
    assert first[2] == [0.0, 3.0] and second[2] == [6.0, 9.0, 12.0]


def with_buffers(rank):
    module = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm1d(3).double(), nn.BatchNorm2d(2).bfloat16())
    module[0].running_mean.copy_(torch.tensor([1.0, 3.0]) * (rank + 1))
    module[1].running_var.copy_(torch.tensor([1.0, 2.0, 4.0]) + rank)
    module[2].register_buffer("same", torch.rand(50, generator=torch.Generator().manual_seed(0)))
    module[2].num_batches_tracked.fill_(7)
    return module


def on_ranks_average():
    module = with_buffers(dist.get_rank())
    before = copy.deepcopy(module)
    with CommDebugMode() as seen:
        average_buffers([module, module[0]], dist.group.WORLD)
        average_buffers([nn.ReLU()], dist.group.WORLD)
    assert torch.equal(module[2].same, before[2].same)
    assert [t.dtype for t in module.buffers()] == [t.dtype for t in before.buffers()]
    values = module[0].running_mean.tolist(), module[1].running_var.tolist(), module[2].running_var.tolist()
    return values, module[2].num_batches_tracked.item(), seen.get_total_counts()


def test_buffers_are_averaged_in_one_collective(ranks):
    values = [1.5, 4.5], [1.5, 2.5, 4.5], [1.0, 1.0]
    assert ranks(on_ranks_average) == [(values, 7, 1)] * 2


def on_ranks_broadcast():
    rank = dist.get_rank()
    tensors = [
        torch.full((2, 3), rank + 0.5).requires_grad_(),
        torch.tensor(2**60 + rank),
        torch.tensor([rank == 0, True]),
        torch.full((2, 3), rank + 0.25).T,
        torch.empty(0),
    ]
    broadcast_from_first(tensors, dist.group.WORLD)
    return [tensor.tolist() for tensor in tensors]


def test_everything_of_the_first_rank_arrives_exactly(ranks):
    expected = [[[0.5] * 3] * 2, 2**60, [True, True], [[0.25] * 2] * 3, []]
    assert ranks(on_ranks_broadcast) == [expected] * 2


def rows_and_targets():
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1, 0, 1, 2])


def contrast_stage():
    torch.manual_seed(0)
    context = StageContext(index=0, num_stages=2, feature_shape=(5,), image_shape=(3, 8, 8))
    objective = InfoPro(task_loss="contrast", reconstruction_weight=None, task_head="0c1f")
    return objective.build(context, Classification(num_classes=3))


class Stage(nn.Module):
    def __init__(self, objective):
        super().__init__()
        self.objective = objective


def on_ranks_contrast(gathers, dtype):
    """The loss and the mean gradient over unequal parts, as `scale` weights them."""
    stage, sizes = Stage(contrast_stage()), (5, 2)
    if gathers:
        gather_contrast(stage, dist.group.WORLD)
    rows, targets = (x.split(sizes)[dist.get_rank()] for x in rows_and_targets())
    loss = stage.objective(rows.to(dtype), Batch(images=None, targets=targets))["total"]
    (loss * sizes[dist.get_rank()] * 2 / 7).backward()
    gradients = [p.grad / 2 for p in stage.parameters()]
    for gradient in gradients:
        dist.all_reduce(gradient)
    return loss.item(), gradients


@pytest.mark.parametrize("gathers", [True, False])
def test_contrast_over_ranks_is_contrast_of_the_whole_batch(ranks, gathers):
    whole = contrast_stage()
    rows, targets = rows_and_targets()
    loss = whole(rows, Batch(images=None, targets=targets))["total"]
    loss.backward()
    for value, gradients in ranks(on_ranks_contrast, gathers, torch.float32):
        assert (value == pytest.approx(loss.item(), rel=1e-6)) == gathers
        pairs = zip(gradients, whole.parameters(), strict=True)
        assert all(torch.allclose(own, p.grad, rtol=1e-5, atol=1e-7) for own, p in pairs) == gathers


def test_objectives_hold_no_process_group_by_default():
    stage = contrast_stage()
    assert stage.gather is None
    rows, targets = rows_and_targets()
    projected = stage.heads["task"](rows)
    assert torch.equal(
        stage(rows, Batch(images=None, targets=targets))["task"],
        supervised_contrastive(projected, targets, temperature=0.07),
    )
