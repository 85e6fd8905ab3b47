"""BatchNorm over the parts of a batch equals BatchNorm of the whole batch.

Functions named `on_ranks_...` run in both processes of `conftest.py`.
"""

import copy
import pickle

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from infopro.engines.synced_batch_norm import SyncedBatchNorm2d, synchronise_batch_norm
from infopro.errors import BadInput, NotYetSupported

SIZES = {"BatchNorm1d": (5,), "BatchNorm2d": (4, 3), "BatchNorm3d": (2, 3, 2)}


def norm(kind, dtype=torch.float64, **options):
    torch.manual_seed(0)
    module = getattr(nn, kind)(3, **options).to(dtype)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def whole_batch(size, count=8, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (100 + 3 * torch.randn(count, 3, *size, generator=generator, dtype=dtype)).requires_grad_()


def on_ranks_compare(kind, size, options, parts=(5, 3), dtype=torch.float64, tolerance=1e-9):
    """Outputs, gradients of input and parameters, running statistics; in training, then in evaluation."""
    reference = norm(kind, dtype, **options)
    ours = copy.deepcopy(reference)
    ours.register_forward_hook(lambda *_: None)
    kept = {name: id(t) for name, t in (*ours.named_parameters(), *ours.named_buffers())}
    synchronise_batch_norm([ours], dist.group.WORLD)
    assert {name: id(t) for name, t in (*ours.named_parameters(), *ours.named_buffers())} == kept
    assert isinstance(ours, getattr(nn, kind)) and list(ours.state_dict()) == list(reference.state_dict())
    rank = dist.get_rank()
    close = {"rtol": tolerance, "atol": tolerance}
    for seed in range(3):
        whole = whole_batch(size, sum(parts), seed, dtype)
        own = whole.detach().split(parts)[rank].clone().requires_grad_()
        weights = torch.linspace(0, 1, whole.numel(), dtype=dtype).view_as(whole)
        expected, output = reference(whole), ours(own)
        torch.testing.assert_close(output, expected.split(parts)[rank], **close)
        (expected * weights).square().sum().backward()
        (output * weights.split(parts)[rank]).square().sum().backward()
        torch.testing.assert_close(own.grad, whole.grad.split(parts)[rank], **close)
        for p, q in zip(ours.parameters(), reference.parameters(), strict=True):
            gradient = p.grad.clone()
            dist.all_reduce(gradient)
            torch.testing.assert_close(gradient, q.grad, **close)
        for p, q in zip(ours.buffers(), reference.buffers(), strict=True):
            torch.testing.assert_close(p, q, **close)
        ours.zero_grad(), reference.zero_grad()
    ours.load_state_dict(reference.state_dict())
    with torch.no_grad():
        assert torch.equal(ours.eval()(own), reference.eval()(own))


@pytest.mark.parametrize(
    "options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}]
)
@pytest.mark.parametrize("kind", SIZES)
def test_equals_batch_norm_of_the_whole_batch(ranks, kind, options):
    ranks(on_ranks_compare, kind, SIZES[kind], options)


def test_vectors_one_image_on_a_rank_and_float32(ranks):
    ranks(on_ranks_compare, "BatchNorm1d", (), {}, (7, 1))
    ranks(on_ranks_compare, "BatchNorm2d", (4, 3), {}, (4, 4), torch.float32, 2e-3)


def on_ranks_half():
    """Statistics in float32 of bfloat16 features, as torch keeps them."""
    module = norm("BatchNorm2d", torch.float32)
    synchronise_batch_norm([module], dist.group.WORLD)
    own = whole_batch((4, 3), dtype=torch.float32).detach().bfloat16().split((5, 3))[dist.get_rank()]
    output = module(own)
    assert output.dtype == torch.bfloat16 and module.running_mean.dtype == torch.float32
    return module.running_mean, module.running_var


def test_half_precision_keeps_wide_statistics(ranks):
    reference = norm("BatchNorm2d", torch.float32)
    reference(whole_batch((4, 3), dtype=torch.float32).detach().bfloat16().float())
    for mean, variance in ranks(on_ranks_half):
        torch.testing.assert_close(mean, reference.running_mean)
        torch.testing.assert_close(variance, reference.running_var)


def on_ranks_lone():
    """One number per channel in all has no variance: an error on every rank, as BatchNorm's own."""
    module = norm("BatchNorm1d")
    group = dist.new_group([dist.get_rank()], use_local_synchronization=True)
    synchronise_batch_norm([module], group)
    with pytest.raises(BadInput) as error:
        module(whole_batch((), 1))
    return str(error.value)


def test_a_single_value_per_channel_is_an_error(ranks):
    for message in ranks(on_ranks_lone):
        assert message == "BatchNorm needs more than one value per channel to train: got 1"


def on_ranks_refuse():
    class Own(nn.BatchNorm2d):
        def forward(self, input):
            return super().forward(input).relu()

    network = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(Own(3)))
    with pytest.raises(NotYetSupported) as error:
        synchronise_batch_norm([network], dist.group.WORLD)
    assert type(network[0]) is nn.BatchNorm2d
    return str(error.value)


def test_other_batch_norms_are_refused_by_name(ranks):
    for message in ranks(on_ranks_refuse):
        assert message == (
            "this kind of BatchNorm cannot be synchronised: got Own at 1.0; "
            "allowed: BatchNorm1d, BatchNorm2d, BatchNorm3d; train without synchronised BatchNorm"
        )


def on_ranks_again():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.InstanceNorm2d(3), nn.GroupNorm(1, 3))
    for _ in range(2):
        synchronise_batch_norm([network, network[0]], dist.group.WORLD)
    with pytest.raises(ValueError, match="expected 4D input"):
        network[0](torch.zeros(2, 3))
    return [type(module).__name__ for module in network]


def test_twice_is_once_and_other_norms_stay(ranks):
    assert ranks(on_ranks_again) == [["SyncedBatchNorm2d", "InstanceNorm2d", "GroupNorm"]] * 2


def on_ranks_copy():
    network = nn.Sequential(nn.BatchNorm2d(3).eval())
    synchronise_batch_norm([network], dist.group.WORLD)
    copies = copy.deepcopy(network), pickle.loads(pickle.dumps(network))
    for other in copies:
        assert all(torch.equal(a, b) for a, b in zip(other.buffers(), network.buffers(), strict=True))
        assert other[0].weight is not network[0].weight and not other[0].training
    return [type(other[0]) for other in (network, *copies)]


def test_copies_are_ordinary(ranks):
    expected = [SyncedBatchNorm2d, nn.BatchNorm2d, nn.BatchNorm2d]
    assert ranks(on_ranks_copy) == [expected] * 2


def test_without_processes_it_is_the_ordinary_one():
    ours, reference = norm("BatchNorm2d"), norm("BatchNorm2d")
    synchronise_batch_norm([ours], None)
    assert isinstance(ours, nn.SyncBatchNorm) and isinstance(ours, _BatchNorm)
    images = whole_batch((4, 3))
    assert torch.equal(ours(images), reference(images))
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), reference.buffers(), strict=True))
