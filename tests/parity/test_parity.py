"""Every objective on every kind of network equals the reference, and back-propagation iff K = 1."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import infopro
from infopro.models.cifar_resnet import CifarResNet
from infopro.objectives import from_name, list_objectives

CLASSES, BATCH, SIDE = 3, 6, 32


class UNet(nn.Module):
    """Two skips, of different sizes, cross every cut in the middle."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = block(3, 4), block(4, 8)
        self.middle = block(8, 8)
        self.up2, self.up1 = block(16, 4), block(8, 4)
        self.classifier = nn.Linear(4, CLASSES)

    def forward(self, x):
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        deep = self.middle(F.max_pool2d(second, 2))
        up = self.up2(torch.cat([F.interpolate(deep, scale_factor=2), second], 1))
        up = self.up1(torch.cat([F.interpolate(up, scale_factor=2), first], 1))
        return self.classifier(up.mean((2, 3)))


def block(in_channels, channels):
    return nn.Sequential(nn.Conv2d(in_channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())


def resnet():
    return CifarResNet(blocks=(2, 1, 1), widths=(4, 8, 8), num_classes=CLASSES, in_channels=3)


def dropout_network():
    blocks = [nn.Sequential(block(3 if i == 0 else 6, 6), nn.Dropout(0.3)) for i in range(4)]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(6, CLASSES)]
    return nn.Sequential(*blocks, *pool)


def vit():
    return timm.models.VisionTransformer(
        img_size=SIDE,
        patch_size=8,
        embed_dim=32,
        depth=4,
        num_heads=2,
        num_classes=CLASSES,
        drop_path_rate=0.3,
        proj_drop_rate=0.1,
    )


# the network and its cuts for K = 4; every second one, the middle, is the cut for K = 2
NETWORKS = {
    "resnet": (resnet, ["layer1.0", "layer1.1", "layer2.0"]),
    "dropout": (dropout_network, ["0", "1", "2"]),
    "u-net": (UNet, ["down1", "middle", "up2"]),
    "vit": (vit, ["blocks.0", "blocks.1", "blocks.2"]),
}
LOCAL = [name for name in list_objectives() if from_name(name).num_modules is None]

every_network = pytest.mark.parametrize("network", NETWORKS)


def build(network, objective, num_modules):
    torch.manual_seed(0)
    model, cuts = NETWORKS[network][0](), NETWORKS[network][1]
    return localize(model, objective, cuts={1: [], 2: cuts[1:2], 4: cuts}[num_modules])


def localize(model, objective, **where):
    task = infopro.tasks.Classification(num_classes=CLASSES)
    return infopro.localize(model, torch.rand(2, 3, SIDE, SIDE), objective=objective, task=task, **where)


def batch(step=0):
    generator = torch.Generator().manual_seed(step)
    images = torch.rand(BATCH, 3, SIDE, SIDE, generator=generator)
    return images, torch.randint(CLASSES, (BATCH,), generator=generator)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)


@every_network
@pytest.mark.parametrize("name", list_objectives())
def test_one_module_passes_the_parity_check(network, name):
    report = infopro.parity_check(build(network, from_name(name), 1), *batch())
    assert report.passed and report.equals_end_to_end and report.num_modules == 1


@every_network
@pytest.mark.parametrize("name", LOCAL)
@pytest.mark.parametrize("num_modules", [2, 4])
def test_several_modules_equal_the_reference_and_differ_from_back_propagation(network, name, num_modules):
    local = build(network, from_name(name), num_modules)
    report = infopro.parity_check(local, *batch())
    assert report.differences == ()
    assert report.passed and not report.equals_end_to_end and report.num_modules == num_modules


@every_network
def test_parity_holds_under_bfloat16_autocast(network):
    local = build(network, from_name("infopro-contrast"), 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        report = infopro.parity_check(local, *batch())
    assert report.differences == () and report.passed


@every_network
@pytest.mark.parametrize("name", ["end-to-end", "greedy", "infopro-softmax"])
def test_training_one_module_is_back_propagation_bit_for_bit(network, name):
    local = build(network, from_name(name), 1)
    plain = copy.deepcopy(local.model)
    ours, theirs = sgd(local.parameters()), sgd(plain.parameters())
    for step in range(5):
        images, labels = batch(step)

        torch.manual_seed(step)
        ours.zero_grad()
        out = local.backward(images, labels)
        ours.step()

        torch.manual_seed(step)
        theirs.zero_grad()
        logits = plain(images)
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        theirs.step()

        assert torch.equal(out.logits, logits) and torch.equal(out.losses[0]["total"], loss)
    assert_same_tensors(local.model.state_dict(), plain.state_dict())
    assert_same_tensors(momentum(ours, local.model), momentum(theirs, plain))


@pytest.mark.parametrize("name", ["greedy", "infopro-softmax"])
@pytest.mark.parametrize("num_modules", [2, 4])
def test_training_several_modules_is_not_back_propagation(name, num_modules):
    weights = {}
    for k in (1, num_modules):
        local = build("resnet", from_name(name), k)
        optimizer = sgd(local.parameters())
        local.backward(*batch())
        optimizer.step()
        weights[k] = local.model.state_dict()
    for part in ("conv1", "layer1.0.conv1"):
        assert not torch.equal(weights[1][f"{part}.weight"], weights[num_modules][f"{part}.weight"])
    # the last module reads the same features and has the same loss
    assert torch.equal(weights[1]["fc.weight"], weights[num_modules]["fc.weight"])


@every_network
@pytest.mark.parametrize("name", LOCAL)
def test_one_step_changes_the_weights_of_every_module_and_head(network, name):
    local = build(network, from_name(name), 4)
    before = copy.deepcopy(dict(local.named_parameters()))
    optimizer = torch.optim.SGD(local.parameters(), lr=0.1)
    local.backward(*batch())
    optimizer.step()
    for stage in local.stages:
        changed = [p for n, p in local.named_parameters() if not torch.equal(before[n], p)]
        own = {id(p) for p in stage.part.parameters()}
        assert any(id(p) in own for p in changed)
        for head in stage.heads.values():
            heads = {id(p) for p in head.parameters()}
            assert any(id(p) in heads for p in changed)


@every_network
@pytest.mark.parametrize("name", LOCAL)
def test_stepping_each_stage_at_once_equals_one_optimizer_at_the_end(network, name):
    """Features cross a cut as they were before the update, so the moment of the update plays no role."""
    late = build(network, from_name(name), 4)
    early = copy.deepcopy(late)
    optimizer = sgd(late.parameters())
    optimizers = [sgd(stage.parameters()) for stage in early.stages]

    def step_and_free(index):
        optimizers[index].step()
        optimizers[index].zero_grad()

    for step in range(2):
        torch.manual_seed(step)
        optimizer.zero_grad()
        expected = late.backward(*batch(step))
        optimizer.step()
        torch.manual_seed(step)
        found = early.backward(*batch(step), on_stage_done=step_and_free)
        assert torch.equal(expected.logits, found.logits)
        for left, right in zip(expected.losses, found.losses, strict=True):
            assert_same_tensors(left, right)
    assert_same_tensors(late.state_dict(), early.state_dict())
    assert all(p.grad is None for p in early.parameters())


class Table(nn.Module):
    """A block that returns a view of its parameter."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.rand(1, 3, SIDE, SIDE))

    def forward(self, x):
        return self.position[:, :3]


class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = Table()
        self.first, self.second = block(3, 3), nn.Conv2d(3, CLASSES, 1)

    def forward(self, x):
        position = self.table(x)
        return self.second(self.first(x + position) + position).mean((2, 3))


class GluePositions(Positions):
    def forward(self, x):
        position = self.table.position[:, :3] * 2
        return self.second(self.first(x + position) + position).mean((2, 3))


def test_a_view_of_a_parameter_crosses_a_cut_as_it_was_before_the_update():
    torch.manual_seed(0)
    late = localize(Positions(), from_name("greedy"), cuts=["first"])
    early = copy.deepcopy(late)
    optimizers = [sgd(stage.parameters()) for stage in early.stages]
    expected = late.backward(*batch())
    found = early.backward(*batch(), on_stage_done=lambda index: optimizers[index].step())
    assert torch.equal(expected.logits, found.logits)


def test_what_glue_computes_from_parameters_alone_is_trained_by_every_module_that_reads_it():
    torch.manual_seed(0)
    local = localize(GluePositions(), from_name("greedy"), cuts=["first"])
    assert local.split.carried == (0,), "it is computed again, not carried"
    assert any("1 parameters are used by several modules" in note for note in local.split.notes)
    gradients = []
    position = local.model.table.position
    local.backward(*batch(), on_stage_done=lambda index: gradients.append(position.grad.clone()))
    assert not torch.equal(gradients[0], gradients[1]), "the second module's loss adds its gradient"
    report = infopro.parity_check(local, *batch())
    assert report.differences == () and report.passed
    assert infopro.isolation_check(local, *batch()).untrained == ()


def test_a_live_split_trains_as_a_recorded_one():
    recorded = build("u-net", from_name("infopro-softmax"), 4)
    live = localize(
        copy.deepcopy(recorded.model), from_name("infopro-softmax"), cuts=recorded.split.cuts, record=False
    )
    assert live.split.live and live.split.blocks == recorded.split.blocks
    assert live.split.boundary_shapes == recorded.split.boundary_shapes
    assert live.split.carried == recorded.split.carried
    live.load_state_dict(recorded.state_dict())
    for step in range(2):
        left, right = recorded.backward(*batch(step)), live.backward(*batch(step))
        for mine, theirs in zip(left.losses, right.losses, strict=True):
            assert_same_tensors(mine, theirs)
    for mine, theirs in zip(recorded.parameters(), live.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)
    assert infopro.isolation_check(live, *batch()).isolated
    parts = [{id(p) for p in stage.part.parameters()} for stage in live.stages]
    assert [len(p) for p in parts] == [len(list(stage.part.parameters())) for stage in recorded.stages]


def momentum(optimizer, model):
    return {name: optimizer.state[p]["momentum_buffer"] for name, p in model.named_parameters()}


def assert_same_tensors(left, right):
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert different == []
