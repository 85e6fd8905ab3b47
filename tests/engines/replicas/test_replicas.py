"""Ranks that train on parts of a batch give what one rank with the whole batch gives.

Functions named `on_ranks_...` run in both processes of `conftest.py`.
"""

import gc
import weakref
from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

import infopro
from infopro.engines import replicas as module_under_test
from infopro.engines.parts_of_batches import gather_contrast, gradient_scale, scaled_gradient
from infopro.engines.replicas import replicate, without_gradient
from infopro.engines.shards import full_state, shard
from infopro.engines.synced_batch_norm import synchronise_batch_norm
from infopro.errors import BadConfiguration
from infopro.local import differentiate
from infopro.objectives import Greedy, InfoPro, from_name, list_objectives
from infopro.types import Batch

CLASSES, SHAPE = 3, (3, 8, 8)


class Net(nn.Module):
    """Three blocks; the first part reads a parameter that belongs to no block."""

    def __init__(self, norm=nn.Identity):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), norm(6), nn.ReLU())
        self.places = nn.Parameter(torch.randn(1, 6, 8, 8))
        self.blocks = nn.Sequential(*(Block(norm) for _ in range(2)))
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images):
        return self.head(self.blocks(self.stem(images) + self.places).mean((2, 3)))


class Block(nn.Module):
    """With a layer that runs only where `takes_spare` says so, and one that never runs."""

    takes_spare = False

    def __init__(self, norm):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), norm(6), nn.ReLU())
        self.spare = nn.Conv2d(6, 6, 1).requires_grad_(False)

    def forward(self, x):
        x = self.layers(x) + x
        return self.spare(x) + x if self.takes_spare else x


def build(objective, *, norm=nn.Identity, dtype=torch.float64, spare=False):
    torch.manual_seed(0)
    model = Net(norm).to(dtype)
    for block in model.blocks:
        block.spare.requires_grad_(spare)
    where = {"num_modules": 1} if objective.num_modules == 1 else {"cuts": ["blocks.0", "blocks.1"]}
    return infopro.localize(
        model,
        torch.rand(2, *SHAPE, dtype=dtype),
        objective=objective,
        task=infopro.tasks.Classification(num_classes=CLASSES),
        **where,
    )


def batch(size=8, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(size, *SHAPE, generator=generator, dtype=dtype), torch.arange(size) % CLASSES


def part(images, targets, sizes):
    rank = dist.get_rank()
    return Batch(images.split(sizes)[rank], targets.split(sizes)[rank])


def group():
    return dist.group.WORLD


def step(local, stages, own, scale=1.0):
    """One local step of this rank; losses as reported."""
    flow, reported = local._split.start((own.images,)), []
    for stage in stages:
        flow, losses = stage(flow, own, scale=scale)
        differentiate(losses["total"])
        reported.append({name: value.item() for name, value in losses.items()})
    for stage in stages:
        stage.wait()
    return reported


def mean_over_ranks(tensor):
    total = tensor / dist.get_world_size()
    dist.all_reduce(total)
    return total


def assert_same_on_both(tensor):
    copies = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(copies, tensor.contiguous())
    assert all(torch.equal(copy, tensor) for copy in copies)


def assert_equal_networks(ours, reference, *, gradients):
    pairs = zip(ours.named_parameters(), reference.named_parameters(), strict=True)
    for (name, own), (_, expected) in pairs:
        if gradients:
            assert (own.grad is None) == (expected.grad is None), name
            if own.grad is None:
                continue
            own, expected = own.grad, expected.grad
        own = full_state(own.detach())
        torch.testing.assert_close(own, expected.detach(), rtol=1e-9, atol=1e-11, msg=lambda m, n=name: n + m)
        assert_same_on_both(own)


def assert_mean_gradients(ours, alone, rtol=0.0, atol=0.0):
    """The oracle of a reduction: what each rank computes alone, averaged."""
    pairs = zip(ours.named_parameters(), alone.named_parameters(), strict=True)
    for (name, own), (_, expected) in pairs:
        if own.requires_grad:
            mean = mean_over_ranks(expected.grad)
            torch.testing.assert_close(own.grad, mean, rtol=rtol, atol=atol, msg=lambda m, n=name: n + m)


def wrap(local, kind):
    if kind == "sharded":
        mesh = init_device_mesh("cpu", (2,))
        return [shard(stage, mesh) for stage in local.stages]
    return [replicate(stage, group(), bucket_mb=0.002) for stage in local.stages]


def on_ranks_train(name, kind, norm, sizes, steps=2):
    """Several steps; losses, gradients, weights and statistics against one rank with the whole batch."""
    objective = from_name(name)
    reference, ours = (build(objective, norm=getattr(nn, norm)) for _ in range(2))
    for local in (reference, ours):
        local.heads.train(norm == "BatchNorm2d")  # the heads have BatchNorm, too
    if norm == "BatchNorm2d":
        synchronise_batch_norm(ours.stages, group())
    for stage in ours.stages:
        gather_contrast(stage, group())
    stages = wrap(ours, kind)
    optimizers = [
        torch.optim.SGD(local.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        for local in (reference, ours)
    ]
    scale = gradient_scale(sizes[dist.get_rank()], sum(sizes), 2)
    for seed in range(steps):
        images, targets = batch(sum(sizes), seed)
        expected = reference.backward(images, targets).losses
        reported = step(ours, stages, part(images, targets, sizes), scale)
        for losses, own in zip(expected, reported, strict=True):
            assert losses.keys() == own.keys()
            for loss in losses:
                mean = mean_over_ranks(torch.tensor(own[loss] * scale, dtype=torch.float64))
                torch.testing.assert_close(mean, losses[loss], rtol=1e-9, atol=1e-11)
        assert_equal_networks(ours, reference, gradients=True)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=seed % 2 == 0)
        assert_equal_networks(ours, reference, gradients=False)
    for (_, own), (_, expected) in zip(ours.named_buffers(), reference.named_buffers(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-11)


every_objective = pytest.mark.parametrize("name", list_objectives())
every_kind = pytest.mark.parametrize("kind", ["replicated", "sharded"])


@every_objective
@every_kind
def test_two_ranks_give_the_gradients_of_one(ranks, name, kind):
    ranks(on_ranks_train, name, kind, "Identity", (4, 4))


@every_objective
@every_kind
def test_unequal_parts_and_synchronised_batch_norm_too(ranks, name, kind):
    ranks(on_ranks_train, name, kind, "BatchNorm2d", (5, 3))


def on_ranks_reduce(autocast, set_to_none, bucket_mb):
    """Gradients after `wait` against the mean of what each rank computes alone, bit for bit."""
    alone, ours = (build(InfoPro(), dtype=torch.float32) for _ in range(2))
    stages = [replicate(stage, group(), bucket_mb=bucket_mb) for stage in ours.stages]
    numbers = []
    for seed in range(4):
        own = part(*batch(8, seed, torch.float32), (4, 4))
        before = [stage.numbers_reduced for stage in stages]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            step(ours, stages, own)
            alone.backward(own.images, own.targets)
        numbers.append([s.numbers_reduced - b for s, b in zip(stages, before, strict=True)])
        assert_mean_gradients(ours, alone)
        ours.zero_grad(set_to_none)
        alone.zero_grad(set_to_none)
    parameters = [sum(p.numel() for p in s.parameters() if p.requires_grad) for s in ours.stages]
    return numbers, parameters


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("set_to_none", "bucket_mb"), [(True, None), (True, 0.001), (False, 0.001)])
def test_every_parameter_is_averaged_exactly_once_a_step(ranks, autocast, set_to_none, bucket_mb):
    for numbers, parameters in ranks(on_ranks_reduce, autocast, set_to_none, bucket_mb):
        assert numbers == [parameters] * 4


class Deferred:
    """A sum that nobody computes before it is waited for: the slowest network there is."""

    def __init__(self, tensor, group, log, reduce):
        self.all, self.log = (tensor, group, reduce), log

    def wait(self):
        tensor, group, reduce = self.all
        self.log.append("sum arrives")
        reduce(tensor, group=group)


@contextmanager
def deferred_sums(log):
    reduce = dist.all_reduce

    def all_reduce(tensor, group, async_op):
        assert async_op
        log.append("sum starts")
        return Deferred(tensor, group, log, reduce)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module_under_test.dist, "all_reduce", all_reduce)
        yield


def on_ranks_defer():
    alone, ours = (build(Greedy()) for _ in range(2))
    stages = [replicate(stage, group()) for stage in ours.stages]
    own, log = part(*batch(), (5, 3)), []
    for index, stage in enumerate(ours.stages):
        stage.register_forward_pre_hook(lambda *_, index=index: log.append(f"forward {index}"))
    with deferred_sums(log):
        step(ours, stages, own)
    alone.backward(own.images, own.targets)
    assert_mean_gradients(ours, alone)
    return log


def test_the_reduction_of_a_stage_is_under_way_while_the_next_one_runs(ranks):
    for log in ranks(on_ranks_defer):
        started = [f"forward {k}" if e == 0 else "sum starts" for k in range(3) for e in range(2)]
        assert log == [*started, *["sum arrives"] * 3]


def on_ranks_accumulate():
    """Two backward passes before a step: the second adds to the mean of the first, when it has arrived."""
    alone, ours = (build(Greedy()) for _ in range(2))
    replica, log = replicate(ours.stages[0], group()), []
    for seed in range(2):
        own = part(*batch(8, seed), (4, 4))
        with deferred_sums(log):
            _, losses = replica(ours._split.start((own.images,)), own)
            differentiate(losses["total"])
        alone.backward(own.images, own.targets)
    with deferred_sums(log):
        replica.wait()
    assert_mean_gradients(ours.stages[0], alone.stages[0], rtol=1e-12, atol=1e-14)
    return log


def test_gradients_accumulate(ranks):
    assert ranks(on_ranks_accumulate) == [["sum starts", "sum arrives"] * 2] * 2


def on_ranks_unused(way):
    """A trainable layer that no rank runs: the others' gradients are averaged all the same."""
    alone, ours = (build(Greedy(), spare=True) for _ in range(2))
    own = part(*batch(), (4, 4))
    first = ours.stages[0]
    flow = ours._split.start((own.images,))
    unused = without_gradient(first, flow, own)
    options = {"named": {"unused": unused}, "found": {"find_unused": True}, "neither": {}}[way]
    replica = replicate(first, group(), **options)
    for _ in range(3):
        _, losses = replica(flow, own)
        differentiate(losses["total"])
        replica.wait()
        alone.backward(own.images, own.targets)
        for (name, p), expected in zip(first.named_parameters(), alone.stages[0].parameters(), strict=True):
            assert (p.grad is None) == (name in unused)
            assert p.grad is None or torch.equal(p.grad, mean_over_ranks(expected.grad))
        first.zero_grad()
        alone.zero_grad()
    return unused


@pytest.mark.parametrize("way", ["named", "found"])
def test_parameters_without_gradient_keep_none(ranks, way):
    for unused in ranks(on_ranks_unused, way):
        assert unused == ("part.blocks/0.spare.weight", "part.blocks/0.spare.bias")


def on_ranks_fail(way):
    with pytest.raises(BadConfiguration) as error:
        if way == "wrong":
            ours = build(Greedy(), spare=True)
            replicate(ours.stages[0], group(), unused=["nonsense"])
        elif way == "used":
            ours = build(Greedy())
            names = [
                name for name, p in ours.stages[0].named_parameters() if p.dim() == 1 and p.requires_grad
            ]
            step(ours, [replicate(ours.stages[0], group(), unused=names[:1])], part(*batch(), (4, 4)))
        else:
            on_ranks_unused("neither")
    return str(error.value)


def test_gradients_that_are_no_mean_are_an_error_at_once(ranks):
    for message in ranks(on_ranks_fail, "neither"):
        assert "got no gradient" in message and "part.blocks/0.spare.weight" in message
        assert "pass find_unused=True" in message
    for message in ranks(on_ranks_fail, "used"):
        assert "were called unused got a gradient" in message and "part.stem.0.bias" in message
    for message in ranks(on_ranks_fail, "wrong"):
        assert message == "the stage has no such parameter: got nonsense"


def on_ranks_sometimes():
    """A layer that only the second rank runs, in every other step."""
    alone, ours = (build(Greedy(), spare=True) for _ in range(2))
    replica = replicate(ours.stages[0], group(), find_unused=True)
    own = part(*batch(), (4, 4))
    for number in range(3):
        for local in (alone, ours):
            local.model.blocks[0].takes_spare = number % 2 == 1 and dist.get_rank() == 1
        _, losses = replica(ours._split.start((own.images,)), own)
        differentiate(losses["total"])
        replica.wait()
        alone.backward(own.images, own.targets)
        stages = (ours.stages[0], alone.stages[0])
        for (name, p), expected in zip(stages[0].named_parameters(), stages[1].parameters(), strict=True):
            if "spare" in name and number % 2 == 0:
                assert p.grad is None
            else:
                own_part = torch.zeros_like(p) if expected.grad is None else expected.grad
                assert torch.equal(p.grad, mean_over_ranks(own_part))
        ours.zero_grad()
        alone.zero_grad()


def test_a_layer_that_only_some_ranks_run_in_some_steps(ranks):
    ranks(on_ranks_sometimes)


def on_ranks_frozen(kind):
    """A stage with nothing to train passes through, and still feeds the next one."""
    ours = build(Greedy())
    ours.stages[0].requires_grad_(False)
    stages = wrap(ours, kind)
    step(ours, stages, part(*batch(), (4, 4)))
    frozen = [p.grad for p in ours.stages[0].parameters()]
    trained = [full_state(p.grad) for p in ours.stages[1].parameters() if p.requires_grad]
    for gradient in trained:
        assert_same_on_both(gradient)
    return [g is None for g in frozen], stages[0].numbers_reduced, len(trained)


@every_kind
def test_a_frozen_stage_passes_through(ranks, kind):
    for frozen, numbers, trained in ranks(on_ranks_frozen, kind):
        assert all(frozen) and numbers == 0 and trained > 0


def on_ranks_start(kind):
    """Ranks that begin with different weights and buffers."""
    torch.manual_seed(dist.get_rank())
    ours = build(Greedy(), norm=nn.BatchNorm2d)
    with torch.no_grad():
        for tensor in (*ours.parameters(), *ours.buffers()):
            tensor.add_(dist.get_rank())
    wrap(ours, kind)
    for stage in ours.stages:
        for tensor in (*stage.parameters(), *stage.buffers()):
            assert_same_on_both(full_state(tensor.detach()))
    return [full_state(tensor.detach()).double().sum().item() for tensor in ours.parameters()]


@every_kind
def test_all_ranks_begin_as_the_first(ranks, kind):
    first, second = ranks(on_ranks_start, kind)
    expected = [p.sum().item() for p in build(Greedy(), norm=nn.BatchNorm2d).parameters()]
    assert first == second == pytest.approx(expected)


def on_ranks_forget(kind):
    """A replica that is not needed any more gives its buckets back."""
    ours = build(Greedy())
    stages = wrap(ours, kind)
    step(ours, stages, part(*batch(), (4, 4)))
    roots = [weakref.ref(stage._root) for stage in stages]
    del stages, ours
    gc.collect()
    return [root() is None for root in roots]


def test_replicas_are_freed(ranks):
    assert ranks(on_ranks_forget, "replicated") == [[True] * 3] * 2


def on_ranks_pass_on():
    ours = build(Greedy())
    replica, seen = replicate(ours.stages[0], group()), []
    own = part(*batch(), (4, 4))
    flow, losses = replica(ours._split.start((own.images,)), own, seen.append)
    left = ours.stages[0].part.boundary(flow)
    assert torch.equal(ours.stages[0].part.boundary(seen[0]), left)
    with torch.no_grad():
        _, silent = replica(ours._split.start((own.images,)), own)
    return left.requires_grad, [losses[n].requires_grad for n in losses], silent["total"] == losses["total"]


def test_only_the_loss_leads_back_into_the_stage(ranks):
    assert ranks(on_ranks_pass_on) == [(False, [False, True], True)] * 2


def test_what_is_reported_is_not_scaled():
    loss = torch.tensor(3.0, requires_grad=True)
    scaled = scaled_gradient(loss, 0.75)
    scaled.backward()
    assert scaled.item() == 3.0 and loss.grad.item() == 0.75
    assert scaled_gradient(loss, 1.0) is loss
    assert sum(gradient_scale(n, 8, 3) for n in (3, 3, 2)) == pytest.approx(3)


def test_finding_unused_parameters_leaves_no_trace():
    local = build(InfoPro(), norm=nn.BatchNorm2d, spare=True)
    before = {name: value.clone() for name, value in local.state_dict().items()}
    images, targets = batch()
    random = torch.get_rng_state()
    flow = local._split.start((images,))
    names = without_gradient(local.stages[0], flow, Batch(images, targets))
    assert names == ("part.blocks/0.spare.weight", "part.blocks/0.spare.bias")
    assert all(p.grad is None for p in local.parameters()) and torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in local.state_dict().items())
