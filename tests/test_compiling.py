"""Every stage as a graph of its own: the same numbers, whatever K and λ are."""

import sys
from dataclasses import replace

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import infopro
from infopro import recipes
from infopro.errors import BadConfiguration, NotYetSupported
from infopro.models.cifar_resnet import CifarResNet
from infopro.objectives import InfoPro
from infopro.splitting import LiveSplit


def build(num_modules, *, blocks=(1, 1, 1), checkpoint="none", **objective):
    torch.manual_seed(0)
    return infopro.localize(
        CifarResNet(blocks=blocks, widths=(4, 8, 8), num_classes=3, in_channels=3),
        torch.rand(2, 3, 8, 8),
        num_modules=num_modules,
        balance="depth",
        checkpoint=checkpoint,
        objective=InfoPro(**objective),
        task=infopro.tasks.Classification(num_classes=3),
    )


def batch(size=6):
    return torch.rand(size, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(size) % 3


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("task_loss", "checkpoint"),
    [("softmax", "none"), ("contrast", "none"), ("softmax", "blocks"), ("contrast", "everything")],
)
def test_compiled_stages_compute_what_eager_ones_compute(task_loss, checkpoint):
    eager, compiled = (
        build(2, task_loss=task_loss),
        build(2, task_loss=task_loss, checkpoint=checkpoint),
    )
    compiled.compile(backend="aot_eager", fullgraph=True)
    expected, found = eager.backward(*batch()), compiled.backward(*batch())
    assert torch.equal(found.logits, expected.logits)
    for got, right in zip(found.losses, expected.losses, strict=True):
        assert got == right
    for (name, right), got in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(got.grad, right.grad, rtol=1e-5, atol=1e-6, msg=name)
    for right, got in zip(eager.buffers(), compiled.buffers(), strict=True):
        torch.testing.assert_close(got, right)


def test_there_is_one_graph_per_stage_and_a_new_weight_costs_one_more():
    backend = CompileCounterWithBackend("eager")
    local = build(10, blocks=(4, 4, 4))  # more stages than torch.compile recompiles one function
    local.compile(backend="inductor")  # for naught: compiled again before it runs
    local.compile(backend=backend, fullgraph=True)
    for weight, graphs in ((5.0, 10), (4.0, 11), (3.3, 11), (2.0, 11)):
        local.stages[0].objective.reconstruction_weight = weight
        out = local.backward(*batch())
        assert backend.frame_count == graphs
        losses = out.losses[0]
        torch.testing.assert_close(losses["total"], weight * losses["reconstruction"] + losses["task"])


def test_a_run_is_compiled_when_asked_and_refused_without_a_compiler(monkeypatch):
    config = replace(recipes.load("digits-demo-k4-infopro-softmax").config, compile=True, limit_train=64)
    device = torch.device("cpu")
    data = recipes.prepare_data(config, data_dir=None, download=False, device=device)
    monkeypatch.setenv("CXX", sys.executable)  # any program that is there: nothing is compiled yet
    stages = recipes.prepare(config, data, device=device).local.stages
    assert all("run" in vars(stage) for stage in stages)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        BadConfiguration, match=r"compile needs a C\+\+ compiler on a CPU: got no no-such-comp"
    ):
        recipes.prepare(config, data, device=device)


def test_a_live_network_is_refused():
    class Branches(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = torch.nn.Linear(4, 4), torch.nn.Linear(4, 3)

        def forward(self, x):
            x = self.first(x)
            return self.last(x if float(x.detach().sum()) > 0 else -x)

    local = infopro.localize(
        Branches(),
        torch.rand(2, 4),
        cuts=["first"],
        objective=infopro.objectives.Greedy(),
        task=infopro.tasks.Classification(num_classes=3),
    )
    assert isinstance(local._split, LiveSplit)
    with pytest.raises(NotYetSupported, match=r"cannot be compiled stage by stage; compile its blocks"):
        local.compile()
