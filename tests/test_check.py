"""The two checks pass on sound local models, fail on broken ones, and leave no trace either way."""

import random
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import infopro
from infopro.models.cifar_resnet import CifarResNet
from infopro.objectives import from_name, list_objectives
from infopro.splitting import Flow, Part

LOCAL = [name for name in list_objectives() if from_name(name).num_modules is None]
CHECKS = [infopro.isolation_check, infopro.parity_check]


def build(name="greedy", num_modules=4):
    torch.manual_seed(0)
    objective = from_name(name)
    return infopro.localize(
        CifarResNet(blocks=(2, 1, 1), widths=(4, 8, 8), num_classes=3, in_channels=3),
        torch.rand(2, 3, 16, 16),
        num_modules=objective.num_modules or num_modules,
        balance="depth",
        objective=objective,
        task=infopro.tasks.Classification(num_classes=3),
    )


def batch():
    return torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3


def trace(local):
    """All that a check must not change."""
    return {
        "gradients": [p.grad for p in local.parameters()],
        "gradient values": [None if p.grad is None else p.grad.clone() for p in local.parameters()],
        "state": {name: value.clone() for name, value in local.state_dict().items()},
        "tasks": [value.clone() for value in local.buffers()],
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "modes": [module.training for module in local.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in local.modules()],
        "call": nn.Module.__call__,
        "trainable": [p.requires_grad for p in local.parameters()],
    }


def assert_same(before, after):
    assert before.keys() == after.keys()
    for name in ("python", "modes", "hooks", "call", "trainable"):
        assert before[name] == after[name], name
    assert all(a is b for a, b in zip(before["gradients"], after["gradients"], strict=True))
    assert_equal(before["gradient values"], after["gradient values"])
    assert_equal(before["state"].values(), after["state"].values())
    assert_equal([*before["tasks"], before["torch"]], [*after["tasks"], after["torch"]])


def assert_equal(left, right):
    for a, b in zip(left, right, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


@contextmanager
def untouched(local):
    before = trace(local)
    yield
    assert_same(before, trace(local))


@pytest.mark.parametrize("name", list_objectives())
@pytest.mark.parametrize("num_modules", [2, 4])
def test_every_objective_is_isolated_and_trains_every_parameter(name, num_modules):
    report = infopro.isolation_check(build(name, num_modules), *batch())
    assert report.isolated and bool(report)
    assert report.leaks == () and report.untrained == ()


@pytest.mark.parametrize("name", LOCAL)
def test_a_leak_is_found_and_named(name, monkeypatch):
    local = build(name)
    monkeypatch.setattr(Flow, "detached", lambda flow: flow)
    report = infopro.isolation_check(local, *batch())
    assert not report.isolated and not report
    assert (1, "model.conv1.weight") in report.leaks
    assert (3, "model.layer2.0.conv1.weight") in report.leaks
    assert {stage for stage, _ in report.leaks} == {1, 2, 3}
    assert not any(name.startswith("heads.") for _, name in report.leaks)


def test_one_leaking_stage_is_found(monkeypatch):
    local = build()
    detached = Flow.detached
    calls = iter(range(3))
    monkeypatch.setattr(Flow, "detached", lambda flow: flow if next(calls) == 2 else detached(flow))
    report = infopro.isolation_check(local, *batch())
    last_but_one = {name for name, _ in local.model.named_parameters() if name.startswith("layer2.0.")}
    assert {stage for stage, _ in report.leaks} == {3}
    assert {name.removeprefix("model.") for _, name in report.leaks} == last_but_one


def test_parameters_that_no_loss_reaches_are_named():
    local = build()
    local.model.forgotten = nn.Parameter(torch.zeros(1))
    report = infopro.isolation_check(local, *batch())
    assert report.isolated and report.untrained == ("model.forgotten",)


def test_frozen_parameters_are_not_called_untrained():
    local = build()
    local.model.conv1.requires_grad_(False)
    assert infopro.isolation_check(local, *batch()).untrained == ()


def test_a_stage_that_computes_something_else_is_found(monkeypatch):
    local = build()
    boundary = Part.boundary
    wrong = local.stages[1].part
    scale = {True: 1.0001, False: 1.0}
    monkeypatch.setattr(Part, "boundary", lambda part, flow: boundary(part, flow) * scale[part is wrong])
    report = infopro.parity_check(local, *batch())
    assert not report.passed and not report
    assert "loss task of module 2" in report.differences
    assert "gradient of model.layer1.1.conv1.weight" in report.differences
    assert "gradient of heads.1.heads.task.layers.2.weight" in report.differences
    assert not any("module 1" in name or "layer2" in name for name in report.differences)
    assert "logits" not in report.differences


def test_lost_batch_statistics_are_found(monkeypatch):
    local = build()

    def run_twice(part, flow):
        forward(part, flow)
        return forward(part, flow)

    forward = Part.forward
    monkeypatch.setattr(Part, "forward", run_twice)
    report = infopro.parity_check(local, *batch())
    assert "buffer model.bn1.running_mean" in report.differences
    assert not any(name.startswith("gradient") for name in report.differences)


def test_a_step_without_isolation_is_found(monkeypatch):
    local = build()
    monkeypatch.setattr(Flow, "detached", lambda flow: flow)
    report = infopro.parity_check(local, *batch_whose_graph_stays(monkeypatch))
    assert "gradient of model.conv1.weight" in report.differences
    assert "gradient of model.fc.weight" not in report.differences, "the last module is trained alike"


def batch_whose_graph_stays(monkeypatch):
    backward = torch.autograd.backward
    monkeypatch.setattr(torch.autograd, "backward", lambda loss, **_: backward(loss, retain_graph=True))
    return batch()


@pytest.mark.parametrize("frozen", ["all", "all but the last module"])
def test_frozen_networks_are_back_propagation(frozen):
    local = build(num_modules=2)
    kept = set() if frozen == "all" else {id(p) for p in local.stages[-1].part.parameters()}
    for parameter in local.model.parameters():
        parameter.requires_grad_(id(parameter) in kept)
    report = infopro.parity_check(local, *batch())
    assert report.passed and report.equals_end_to_end


def test_local_training_that_equals_back_propagation_does_not_pass(monkeypatch):
    """K > 1 must differ: a check that compared nothing would pass this."""
    local = build(num_modules=2)

    def back_propagate(images, targets):
        output = local.model(images)
        loss = local.task.loss(output, targets)
        loss.backward()
        return infopro.StepOutput(({"total": loss.detach()},), output.detach())

    monkeypatch.setattr(local, "backward", back_propagate)
    monkeypatch.setattr("infopro.check.reference_backward", lambda _, *batch: back_propagate(*batch))
    report = infopro.parity_check(local, *batch())
    assert report.differences == () and report.equals_end_to_end and not report.passed


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("num_modules", [1, 4])
@pytest.mark.parametrize("with_gradients", [True, False])
def test_checks_leave_no_trace(check, num_modules, with_gradients):
    local = build("infopro-softmax", num_modules)
    if with_gradients:
        local.backward(*batch())
    local.model.layer1[0].bn1.eval()
    with untouched(local):
        check(local, *batch())


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("stage", [0, 2])
def test_checks_leave_no_trace_after_an_error(check, stage, monkeypatch):
    local = build("infopro-softmax")
    local.backward(*batch())
    kind = type(local.stages[stage].objective)

    def broken(*_):
        torch.rand(3)
        raise RuntimeError("broken loss")

    monkeypatch.setattr(kind, "forward", broken)
    with untouched(local), pytest.raises(RuntimeError, match="broken loss"):
        check(local, *batch())


def test_reference_leaves_no_interception_after_an_error():
    local = build()
    call = nn.Module.__call__
    with pytest.raises(IndexError):
        infopro.reference_backward(local, batch()[0], torch.full((6,), 3))
    assert nn.Module.__call__ is call


def test_reference_adds_gradients_as_backward_does():
    left, right = build("infopro-contrast"), build("infopro-contrast")
    for _ in range(2):
        left.backward(*batch())
        infopro.reference_backward(right, *batch())
    pairs = list(zip(left.named_parameters(), right.parameters(), strict=True))
    assert [name for (name, p), q in pairs if not torch.equal(p.grad, q.grad)] == []
