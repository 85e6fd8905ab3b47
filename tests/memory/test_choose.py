import itertools

import pytest
import torch
import torchvision
from torch import nn

import infopro
from infopro.errors import BadConfiguration, BadSplit
from infopro.heads._resized_convolution import ResizedConv2d
from infopro.memory import CutChooser, choose_cuts
from infopro.memory.costs import measure_costs
from infopro.models import cifar_resnet
from infopro.objectives import Greedy, InfoPro
from infopro.recipes import load
from infopro.splitting.fake import FakeNetwork

TASK = infopro.tasks.Classification(num_classes=10)
CIFAR = (torch.empty(8, 3, 32, 32),)


def module_bytes(model, inputs, cuts, objective):
    """What every module of given cuts saves, by the costs that the partition is made of."""
    network = FakeNetwork(model)
    with network.mode:
        targets = torch.zeros(len(inputs[0]), dtype=torch.int64)
    costs = measure_costs(
        network,
        network.inputs(inputs),
        targets,
        names=cuts,
        objective=objective,
        task=network.copy(TASK),
    )
    between = costs.bytes_between(cuts)
    return [between(i, j) for i, j in itertools.pairwise(range(-1, len(cuts) + 1))]


@pytest.mark.parametrize("num_modules", [2, 3, 4])
def test_resnet110_is_at_least_as_balanced_as_the_papers_hand_made_cuts(num_modules, monkeypatch):
    """InfoPro*'s cuts, METHODS 1.3: K = 2 [1,14]; K = 3 [1,9],[2,2]; K = 4 [1,6],[1,14],[2,8]."""
    # the published decoders enlarge the map first, and keep it
    monkeypatch.setattr(ResizedConv2d, "forward", ResizedConv2d._resized_first)
    model, objective = cifar_resnet(110, 10), InfoPro(task_loss="contrast")
    published = load(f"cifar10-resnet110-k{num_modules}-balanced-infopro-contrast").config.cuts
    found = choose_cuts(model, CIFAR, num_modules=num_modules, objective=objective, task=TASK)
    ours = module_bytes(model, CIFAR, found, objective)
    theirs = module_bytes(model, CIFAR, list(published), objective)
    assert max(ours) <= max(theirs)
    if num_modules in (2, 4):
        assert found == list(published), "the exact partition is the one that was made by hand"


def test_a_decoder_that_keeps_the_small_map_moves_the_last_cut_back():
    found = choose_cuts(
        cifar_resnet(110, 10), CIFAR, num_modules=4, objective=InfoPro(task_loss="contrast"), task=TASK
    )
    assert found == ["layer1.6", "layer1.14", "layer2.9"]


@pytest.mark.parametrize("objective", [Greedy(), InfoPro(task_loss="contrast")])
def test_costs_are_what_a_real_step_saves(objective):
    model, images, labels = cifar_resnet(20, 10), torch.rand(8, 3, 32, 32), torch.arange(8)
    cuts = ["layer1.0", "layer2.0", "layer3.1"]
    local = infopro.localize(model, images, cuts=cuts, objective=objective, task=TASK)
    measured = infopro.memory.measure_saved_bytes(local, images, labels).per_module
    assert module_bytes(model, CIFAR, cuts, objective) == list(measured)


def test_heads_move_the_cuts():
    """A decoder at full resolution makes early modules dearer: with it the first module is shorter."""
    model = cifar_resnet(110, 10)
    where = {"num_modules": 4, "task": TASK}
    plain = choose_cuts(model, CIFAR, objective=Greedy(), **where)
    decoded = choose_cuts(model, CIFAR, objective=InfoPro(), **where)
    order = infopro.blocks(model, CIFAR[0]).units
    assert order.index(decoded[0]) < order.index(plain[0])


def test_time_balances_operations_and_memory_balances_bytes():
    model = cifar_resnet(110, 10)
    chooser = CutChooser(FakeNetwork(model), CIFAR, objective=Greedy(), task=TASK)
    points = chooser._blocks["chain"].units[:-1]
    costs = chooser._costs_of(points)

    def largest(cuts, cost):
        edges = [-1, *(points.index(cut) for cut in cuts), len(points)]
        return max(cost(i, j) for i, j in itertools.pairwise(edges))

    memory, time = chooser.cuts(4, balance="memory"), chooser.cuts(4, balance="time")
    depth = chooser.cuts(4, balance="depth")
    assert len({tuple(memory), tuple(time), tuple(depth)}) == 3
    for cost, best in ((costs.bytes_between(points), memory), (costs.flops_between(points), time)):
        assert largest(best, cost) == min(largest(cuts, cost) for cuts in (memory, time, depth))


def test_cuts_between_dense_layers_are_taken_only_where_they_pay():
    images = (torch.empty(4, 3, 64, 64),)
    model = torchvision.models.densenet121(num_classes=10)
    fine = choose_cuts(model, images, num_modules=4, objective=Greedy(), task=TASK)
    assert any("denselayer" in cut for cut in fine)
    resnet = choose_cuts(
        torchvision.models.resnet18(num_classes=10), images, num_modules=3, objective=Greedy(), task=TASK
    )
    assert all("conv" not in cut for cut in resnet)


def test_any_granularity_cuts_inside_blocks():
    model = cifar_resnet(20, 10)
    cuts = choose_cuts(model, CIFAR, num_modules=16, objective=Greedy(), task=TASK, granularity="any")
    assert len(cuts) == 15
    local = infopro.localize(model, torch.rand(2, 3, 32, 32), cuts=cuts, objective=Greedy(), task=TASK)
    assert sum(local.split.carried) > 0, "the residual branch crosses"
    assert infopro.parity_check(local, torch.rand(4, 3, 32, 32), torch.arange(4)).differences == ()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_modules": 11}, BadSplit, "got num_modules=11; allowed: 1 to 10; .*granularity='any'"),
        ({"num_modules": 0}, BadSplit, "got num_modules=0; allowed: 1 to 10"),
        ({"num_modules": 2, "balance": "size"}, BadConfiguration, "unknown balance: got 'size'"),
        ({"num_modules": 2, "granularity": "layer"}, BadConfiguration, "unknown granularity"),
    ],
)
def test_wrong_wishes_are_explained(options, error, message):
    with pytest.raises(error, match=message):
        choose_cuts(cifar_resnet(20, 10), CIFAR, objective=Greedy(), task=TASK, **options)


def test_choosing_leaves_the_network_and_the_random_streams_alone():
    model = cifar_resnet(20, 10).eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    stream, call = torch.get_rng_state(), nn.Module.__call__
    choose_cuts(model, CIFAR, num_modules=4, objective=InfoPro(), task=TASK)
    assert torch.equal(stream, torch.get_rng_state()) and nn.Module.__call__ is call
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert not model.training


class Masked(nn.Module):
    """Branches on input values: fake tensors have none."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)) for _ in range(5))
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x if (x[:, 0] > -100).all() else x * 2)
        return self.head(x)


def test_a_network_that_reads_values_is_cut_all_the_same():
    x = torch.randn(4, 8)
    local = infopro.localize(Masked(), x, num_modules=3, objective=Greedy(), task=TASK)
    assert local.split.num_modules == 3 and local.split.live
    assert infopro.isolation_check(local, x, torch.arange(4)).isolated


class Parallel(nn.Module):
    """Branches of blocks side by side, summed: a cut behind the second leaves the first untrained."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = self.block(3)
        self.branches = nn.ModuleList(self.block(8) for _ in range(5))
        self.head = nn.Linear(8, 5)

    @staticmethod
    def block(channels: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(channels, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(sum(branch(x) for branch in self.branches).mean((2, 3)))


@pytest.mark.parametrize("num_modules", [2, 3])
def test_no_module_is_chosen_that_would_leave_something_untrained(num_modules: int) -> None:
    network, images = Parallel(), torch.rand(4, 3, 16, 16)
    options = {"objective": Greedy(), "task": infopro.tasks.Classification(num_classes=5)}
    local = infopro.localize(network, images, num_modules=num_modules, **options)
    assert infopro.isolation_check(local, images, torch.arange(4)).untrained == ()
    bad = infopro.localize(network, images, cuts=["branches.1"], **options)
    assert len(infopro.isolation_check(bad, images, torch.arange(4)).untrained) == 4
