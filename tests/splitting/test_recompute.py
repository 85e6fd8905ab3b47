import gc
import random

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

import infopro
from infopro.errors import BadConfiguration, NotYetSupported
from infopro.memory import measure_saved_bytes
from infopro.models import cifar_resnet
from infopro.models.cifar_densenet import CifarDenseNet
from infopro.objectives import DGL, EndToEnd, Greedy, InfoPro
from infopro.splitting import run_again_later

TASK = infopro.tasks.Classification(num_classes=10)
LABELS = torch.arange(6)


class Erratic(nn.Module):
    """A residual block whose result depends on buffers that it changes, and on two random streams."""

    def __init__(self):
        super().__init__()
        self.convolution = spectral_norm(nn.Conv2d(8, 8, 3, padding=1))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        scale = self.calls + random.random() + torch.rand(())
        return x + scale * torch.tanh(self.convolution(x))


def erratic():
    blocks = nn.Sequential(*(Erratic() for _ in range(4)))
    return nn.Sequential(nn.Conv2d(3, 8, 3), blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))


def vision_transformer():
    return timm.models.VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=16,
        depth=4,
        num_heads=2,
        num_classes=10,
        drop_path_rate=0.3,
        proj_drop_rate=0.2,
    )


def plain():
    """Blocks are a weight layer and what is behind it."""
    layers = [layer for i in (3, 8, 8) for layer in (nn.Conv2d(i, 8, 3), nn.BatchNorm2d(8), nn.ReLU(True))]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 10)]
    return nn.Sequential(*layers, *tail)


NETWORKS = {
    "resnet": (lambda: cifar_resnet(20, 10), InfoPro(task_loss="contrast"), torch.float32),
    "vit": (vision_transformer, DGL(), torch.bfloat16),
    "plain": (plain, Greedy(), torch.bfloat16),
    "dense": (
        lambda: CifarDenseNet(num_layers=3, growth_rate=4, num_classes=10, in_channels=3),
        DGL(),
        torch.float32,
    ),
    "erratic": (erratic, Greedy(), torch.float32),
}


def trained(network, *, checkpoint, num_modules=3, steps=2):
    """All that a few steps compute, by name, and the bytes that the first of them keeps."""
    build, objective, precision = NETWORKS[network]
    objective = EndToEnd() if num_modules == 1 else objective
    torch.manual_seed(0)
    model, images = build(), torch.rand(6, 3, 32, 32)
    local = infopro.localize(
        model, images, num_modules=num_modules, objective=objective, task=TASK, checkpoint=checkpoint
    )
    saved = measure_saved_bytes(local, images, LABELS).per_module
    optimizer = torch.optim.SGD(local.parameters(), lr=0.1, momentum=0.9)
    torch.manual_seed(1)
    random.seed(1)
    found = {}
    for step in range(steps):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            out = local.backward(images, LABELS)
        optimizer.step()
        found |= {f"{step} loss {k} {n}": v for k, losses in enumerate(out.losses) for n, v in losses.items()}
        found |= {
            f"{step} gradient {n}": p.grad.clone() for n, p in local.named_parameters() if p.grad is not None
        }
        found[f"{step} logits"] = out.logits
    found |= {f"weight {name}": value for name, value in local.state_dict().items()}
    found["random numbers"] = torch.tensor([random.random(), float(torch.rand(()))])
    return found, saved


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name, value in expected.items() if not torch.equal(value, found[name])] == []


@pytest.mark.parametrize("network", NETWORKS)
def test_recomputing_changes_nothing_but_what_is_kept(network):
    """Losses, gradients, BatchNorm's statistics, weights and the random streams afterwards, bit for bit."""
    expected, whole = trained(network, checkpoint="none")
    found, less = trained(network, checkpoint="everything")
    assert_same(found, expected)
    assert all(a < b for a, b in zip(less, whole, strict=True))
    assert all(
        v.any() for n, v in expected.items() if n.startswith("1 gradient model") and n.endswith("weight")
    )


def test_end_to_end_is_checkpointed_as_well():
    expected, (whole,) = trained("resnet", checkpoint="none", num_modules=1)
    found, (saved,) = trained("resnet", checkpoint="blocks", num_modules=1)
    assert_same(found, expected)
    assert saved < whole / 3


def test_heads_run_again_where_everything_does():
    _, blocks = trained("resnet", checkpoint="blocks", steps=0)
    _, everything = trained("resnet", checkpoint="everything", steps=0)
    assert all(a < b for a, b in zip(everything[:-1], blocks[:-1], strict=True))


def test_named_blocks_alone_run_again():
    images, calls = torch.rand(4, 3, 32, 32), []
    model = cifar_resnet(20, 10)
    for name in ("layer1.0", "layer1.1", "layer3.2"):
        model.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    chosen = ["layer3.2", "layer1.1"]
    local = infopro.localize(model, images, num_modules=2, objective=DGL(), task=TASK, checkpoint=chosen)
    assert local.split.recomputed == ("layer1.1", "layer3.2")
    calls.clear()
    local.backward(images, LABELS[:4])
    assert sorted(calls) == ["layer1.0", "layer1.1", "layer1.1", "layer3.2", "layer3.2"]
    calls.clear()
    with torch.no_grad():
        flow = local.start((images,))
        for stage in local.stages:
            flow = stage.part(flow)
    assert sorted(calls) == ["layer1.0", "layer1.1", "layer3.2"]


def test_a_checkpointed_step_equals_the_reference():
    images = torch.rand(4, 3, 32, 32)
    options = {"objective": InfoPro(), "task": TASK, "checkpoint": "everything"}
    local = infopro.localize(cifar_resnet(20, 10), images, cuts=["layer1.1.conv1", "layer2.2"], **options)
    assert infopro.parity_check(local, images, LABELS[:4]) and infopro.isolation_check(
        local, images, LABELS[:4]
    )


class Overwrites(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        x.mul_(2)  # a second run would double it again
        return torch.sin(self.linear(x))


def test_a_block_that_overwrites_its_input_is_kept():
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(2)), Overwrites(), nn.Linear(8, 10))
    images, found = torch.rand(4, 8), []
    for checkpoint in ("none", "blocks"):
        local = infopro.localize(
            model, images, cuts=["0"], objective=Greedy(), task=TASK, checkpoint=checkpoint
        )
        local.heads.load_state_dict({n: torch.ones_like(v) for n, v in local.heads.state_dict().items()})
        model.zero_grad()
        local.backward(images, LABELS[:4])
        found.append({name: p.grad.clone() for name, p in model.named_parameters()})
    assert_same(found[1], found[0])
    assert "2" not in local.split.recomputed and "0" in local.split.recomputed
    assert any("not checkpointed, because a second run would differ" in note for note in local.split.notes)


def test_a_network_that_checkpoints_itself_stays_as_it_is():
    model, images = vision_transformer(), torch.rand(4, 3, 32, 32)
    model.set_grad_checkpointing()
    local = infopro.localize(model, images, num_modules=2, objective=Greedy(), task=TASK, checkpoint="blocks")
    assert not any(name.startswith("blocks.") for name in local.split.recomputed)
    assert any("or the network checkpoints itself: blocks.0" in note for note in local.split.notes)


def test_a_retained_graph_is_differentiated_twice_alike():
    torch.manual_seed(0)
    block, x = Erratic(), torch.rand(4, 8, 5, 5)
    loss = run_again_later(block, block.modules(), x).square().sum()
    before = {name: buffer.clone() for name, buffer in block.named_buffers()}
    first, second = (torch.autograd.grad(loss, block.parameters(), retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(before[name], buffer) for name, buffer in block.named_buffers())


def test_a_buffer_that_is_replaced_runs_again_as_it_was():
    class Replaces(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))
            self.register_buffer("scale", torch.ones(()))

        def forward(self, x):
            self.scale = self.scale + 1
            return (self.scale * self.weight * x).exp()

    block, twin = Replaces(), Replaces()
    run_again_later(block, block.modules(), torch.ones(3)).sum().backward()
    twin(torch.ones(3)).sum().backward()
    assert torch.equal(block.weight.grad, twin.weight.grad) and float(block.scale) == 2


def test_buffers_come_back_when_the_second_run_fails():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.runs = nn.Parameter(torch.ones(3)), 0
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            self.seen += 1
            self.runs += 1
            if self.runs == 2:
                raise ArithmeticError("the second run")
            return (self.weight * x).exp()

    block = Fails()
    seen = block.seen
    with pytest.raises(ArithmeticError, match="the second run"):
        run_again_later(block, block.modules(), torch.ones(3)).sum().backward()
    assert block.seen is seen and float(seen) == 1


def test_a_checkpointed_step_leaves_nothing_for_the_garbage_collector():
    images, labels = torch.rand(4, 3, 32, 32), torch.arange(4)
    options = {"objective": InfoPro(), "task": TASK, "checkpoint": "everything"}
    local = infopro.localize(cifar_resnet(20, 10), images, num_modules=3, **options)
    local.backward(images, labels)
    gc.collect()
    gc.disable()
    try:
        gc.set_debug(gc.DEBUG_SAVEALL)
        local.backward(images, labels)
        gc.collect()
        assert [type(g) for g in gc.garbage if isinstance(g, torch.Tensor)] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("wrong", ["layer1", ["layer1.0", "layer1"], ["nothing"]])
def test_names_that_are_no_blocks_are_refused(wrong):
    with pytest.raises(BadConfiguration, match=r"checkpoint names what is no block: got '(layer1|nothing)'"):
        infopro.localize(
            cifar_resnet(20, 10),
            torch.rand(2, 3, 32, 32),
            num_modules=2,
            objective=Greedy(),
            task=TASK,
            checkpoint=wrong,
        )


def test_a_live_network_is_refused():
    with pytest.raises(
        NotYetSupported, match="runs live cannot be checkpointed block by block: got as asked"
    ):
        infopro.localize(
            cifar_resnet(20, 10),
            torch.rand(2, 3, 32, 32),
            num_modules=2,
            objective=Greedy(),
            task=TASK,
            checkpoint="everything",
            record=False,
        )
