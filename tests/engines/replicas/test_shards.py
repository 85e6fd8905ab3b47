"""Sharded stages: what they send, and how their weights come out and in again.

That they train as one rank does is shown in `test_replicas.py`. Functions named `on_ranks_...` run in both
processes of `conftest.py`.
"""

import copy
import warnings

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_leaves

import infopro
from infopro.engines.shards import full_state, load_full_state, shard
from infopro.errors import NotYetSupported
from infopro.local import differentiate
from infopro.models.cifar_resnet import CifarResNet
from infopro.objectives import InfoPro
from infopro.types import Batch

SHAPE = (3, 8, 8)


def build():
    torch.manual_seed(0)
    model = CifarResNet(blocks=(1, 1, 1), widths=(4, 6, 8), num_classes=3, in_channels=3)
    for module in model.modules():
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False  # torch's counter of collectives hooks every module, which forbids it
    return infopro.localize(
        model,
        torch.rand(2, *SHAPE),
        cuts=["layer1", "layer2"],
        objective=InfoPro(),
        task=infopro.tasks.Classification(num_classes=3),
    )


def batch(seed=0):
    images = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return Batch(images, torch.arange(4) % 3)


def mesh():
    return init_device_mesh("cpu", (dist.get_world_size(),))


def train(local, shards, optimizer, seeds):
    for seed in seeds:
        own = batch(seed)
        flow = local._split.start((own.images,))
        for stage in shards:
            flow, losses = stage(flow, own)
            differentiate(losses["total"])
            stage.wait()
        optimizer.step()
        optimizer.zero_grad()


def start(optimizer="AdamW"):
    local = build()
    shards = [shard(stage, mesh()) for stage in local.stages]
    options = {"momentum": 0.9} if optimizer == "SGD" else {}
    return local, shards, getattr(torch.optim, optimizer)(local.parameters(), lr=0.01, **options)


def on_ranks_count():
    local, shards, _ = start()
    counts = []
    for seed in range(2):
        own = batch(seed)
        flow = local._split.start((own.images,))
        for stage in shards:
            with warnings.catch_warnings(), CommDebugMode() as seen:
                warnings.filterwarnings("ignore", "For backward hooks to be called")  # by its own hooks
                flow, losses = stage(flow, own)
                differentiate(losses["total"])
            counts.append(sorted((str(op), n) for op, n in seen.get_comm_counts().items()))
    return counts


def test_one_all_gather_and_one_reduce_scatter_for_each_stage_and_step(ranks):
    for counts in ranks(on_ranks_count):
        assert len(counts) == 6
        for sent in counts:
            assert [number for _, number in sent] == [1, 1]
            assert "gather" in sent[0][0] and "reduce_scatter" in sent[1][0]


def on_ranks_share():
    """Between steps a rank holds one share of every parameter, gradient and moment."""
    local, shards, optimizer = start()
    train(local, shards, optimizer, range(1))
    own = sum(p.to_local().numel() for p in local.parameters())
    moments = sum(v.to_local().numel() for s in optimizer.state.values() for n, v in s.items() if n != "step")
    assert all(isinstance(p, DTensor) for p in local.parameters())
    assert [type(stage).__name__ for stage in local.stages] == ["LocalStage"] * 3
    return own, moments, sum(p.numel() for p in local.parameters())


def test_parameters_and_moments_are_shared_out(ranks):
    (first, first_moments, whole), (second, second_moments, _) = ranks(on_ranks_share)
    assert first + second == whole == sum(p.numel() for p in build().parameters())
    assert (first_moments, second_moments) == (2 * first, 2 * second)
    assert 0.4 * whole < second < first < 0.6 * whole


def on_ranks_evaluate():
    """The network as a whole, before the first step and after others, and as it is from outside."""
    local, shards, optimizer = start()
    images, outputs = batch(9).images, []
    plain = build()
    for seeds in (range(0), range(2), range(2, 3)):
        train(local, shards, optimizer, seeds)
        for stage in shards:
            with torch.no_grad():  # a loss without a backward pass: what was gathered must not stay
                stage(local._split.start((images,)), batch()) if stage is shards[0] else None
        plain.load_state_dict(full_state(local.state_dict()))
        for model in (local.model, plain.model):
            model.eval()
        with torch.no_grad(), shards[0].whole(), shards[1].whole(), shards[2].whole():
            assert not any(isinstance(p, DTensor) for p in local.model.parameters())
            outputs.append(local.model(images))
            assert torch.equal(outputs[-1], plain.model(images))
        assert all(isinstance(p, DTensor) for p in local.model.parameters())
        for model in (local.model, plain.model):
            model.train()
    return outputs


def test_the_network_runs_as_a_whole(ranks):
    first, second = ranks(on_ranks_evaluate)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])


def on_ranks_resume(optimizer):
    """Saved after two steps, loaded into fresh shards: the third step is the same, bit for bit."""
    local, shards, first = start(optimizer)
    train(local, shards, first, range(2))
    saved = {"model": full_state(local.state_dict()), "optimizer": full_state(first.state_dict())}
    saved = copy.deepcopy(saved)  # buffers are the live ones, as in every state dict
    untouched = copy.deepcopy(saved)
    train(local, shards, first, range(2, 4))

    again, shards, second = start(optimizer)
    load_full_state(again, saved["model"])
    load_full_state(second, saved["optimizer"])
    train(again, shards, second, range(2, 4))
    assert_equal_trees(full_state(again.state_dict()), full_state(local.state_dict()))
    assert_equal_trees(full_state(second.state_dict()), full_state(first.state_dict()))
    assert_equal_trees(saved, untouched)  # the optimizer steps a copy
    assert not any(isinstance(leaf, DTensor) for leaf in tree_leaves(saved))
    return list(saved["model"])


def assert_equal_trees(own, expected):
    pairs = zip(tree_flatten_with_path(own)[0], tree_flatten_with_path(expected)[0], strict=True)
    for (path, a), (other, b) in pairs:
        assert path == other
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, (keystr(path), a, b)


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_plain_checkpoints_come_back(ranks, optimizer):
    for keys in ranks(on_ranks_resume, optimizer):
        assert keys == list(build().state_dict())


def on_ranks_tie():
    local = build()
    local.model.layer2[0].conv2.weight = local.model.layer3[0].conv1.weight
    shard(local.stages[1], mesh())
    with pytest.raises(NotYetSupported) as error:
        shard(local.stages[2], mesh())
    return str(error.value)


def test_a_parameter_of_two_stages_is_refused(ranks):
    for message in ranks(on_ranks_tie):
        assert message.startswith("a parameter of two modules cannot be sharded: got part.layer3")


def on_ranks_load_small():
    """What an optimizer keeps after loading is no larger than its share."""
    local, shards, optimizer = start()
    train(local, shards, optimizer, range(1))
    load_full_state(optimizer, full_state(optimizer.state_dict()))
    moments = [v for s in optimizer.state.values() for name, v in s.items() if name != "step"]
    return all(
        m.to_local().untyped_storage().nbytes() == m.to_local().numel() * m.element_size() for m in moments
    )


def test_a_loaded_share_does_not_hold_the_whole(ranks):
    assert ranks(on_ranks_load_small) == [True, True]
