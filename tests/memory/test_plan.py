import gc
import warnings

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

import infopro
from infopro.errors import BadConfiguration, BadInput, UnknownName
from infopro.memory import (
    checkpoint_segments,
    measure,
    measure_saved_bytes,
    plan,
)
from infopro.memory.planner import Planner
from infopro.memory.tracker import KINDS
from infopro.models import cifar_resnet
from infopro.models.cifar_densenet import CifarDenseNet
from infopro.objectives import EndToEnd, Greedy, InfoPro

TASK = infopro.tasks.Classification(num_classes=10)
SMALL = torch.empty(2, 3, 32, 32, device="meta")

NETWORKS = {
    "resnet": (lambda: cifar_resnet(20, 10), 32),
    "densenet": (lambda: CifarDenseNet(num_layers=3, growth_rate=4, num_classes=10, in_channels=3), 32),
    "bottlenecks": (lambda: ResNet(Bottleneck, [1, 1, 1, 1], num_classes=10), 32),
    "vit": (lambda: timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=64, depth=4), 64),
    "convnext": (lambda: timm.create_model("convnext_atto", num_classes=10), 32),
    "mobilenet": (lambda: torchvision.models.mobilenet_v3_small(num_classes=10), 32),
    "efficientnet": (lambda: timm.create_model("efficientnet_b0", num_classes=10), 32),
}


@pytest.mark.parametrize(
    "objective", [EndToEnd(), Greedy(), InfoPro(task_loss="contrast")], ids=lambda o: o.name
)
@pytest.mark.parametrize("name", NETWORKS)
def test_predicted_bytes_are_exactly_the_measured_ones(name, objective):
    """Saved bytes of every module, the peak, and each kind of memory in it: fake step against real step."""
    torch.manual_seed(0)
    model, side = NETWORKS[name][0](), NETWORKS[name][1]
    images, labels = torch.rand(6, 3, side, side), torch.arange(6)
    planner = Planner(model, (images,), objective=objective, task=TASK, on_cuda=False)
    fake = planner.build(planner.cuts(objective.num_modules or 4))
    predicted = planner.track(fake, 6)
    local = infopro.localize(
        model,
        images,
        objective=objective,
        task=TASK,
        **({"cuts": fake.split.cuts} if fake.split.cuts else {"num_modules": 1}),
    )
    measured = measure(local, images, labels)
    assert measured.saved.per_module == predicted.saved
    step = planner.track(fake, 6, stepping=False)
    assert (step.peak, step.at_peak) == (measured.peak, measured.at_peak)
    assert predicted.peak > step.peak, "the optimizer's state counts, too"


@pytest.mark.parametrize("checkpoint", ["blocks", "everything", ["layer1.0", "layer3.1"], "4 segments"])
def test_predicted_bytes_are_exact_where_blocks_run_again(checkpoint):
    """As above, what is there for the second run only included"""
    torch.manual_seed(0)
    model, images, labels = cifar_resnet(20, 10), torch.rand(6, 3, 32, 32), torch.arange(6)
    objective = InfoPro(task_loss="contrast")
    planner = Planner(model, (images,), objective=objective, task=TASK, on_cuda=False)
    if checkpoint == "4 segments":
        predicted = planner.segmented(4, 6, stepping=False)
        local = checkpoint_segments(model, images, num_segments=4, task=TASK)
    else:
        fake = planner.build(planner.cuts(3), checkpoint)
        predicted = planner.track(fake, 6, stepping=False)
        local = infopro.localize(
            model, images, num_modules=3, objective=objective, task=TASK, checkpoint=checkpoint
        )
    measured = measure(local, images, labels)
    found = (measured.saved.per_module, measured.peak, measured.at_peak)
    assert found == (predicted.saved, predicted.peak, predicted.at_peak)


def test_segments_train_as_back_propagation_does():
    torch.manual_seed(0)
    model, images, labels = cifar_resnet(20, 10), torch.rand(6, 3, 32, 32), torch.arange(6)
    model.get_submodule("layer2").append(nn.Dropout(0.3))
    local = checkpoint_segments(model, images, num_segments=3, task=TASK)
    assert local.split.num_modules == 1 and len(local.split.recomputed) == 2
    assert infopro.parity_check(local, images, labels)
    kept = measure_saved_bytes(local, images, labels).largest
    plain = infopro.localize(model, images, objective=EndToEnd(), task=TASK)
    assert kept < measure_saved_bytes(plain, images, labels).largest / 2
    local.backward(images, labels)
    assert {int(m.num_batches_tracked) for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {1}


def test_a_plan_agrees_with_torchs_own_tracker_end_to_end():
    """Where torch's MemTracker is right, ours says the same."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker

    with FakeTensorMode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, images = cifar_resnet(20, 10), torch.empty(64, 3, 32, 32)
        labels = torch.zeros(64, dtype=torch.int64)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
        )
        for _ in range(2):  # the first step makes the optimizer's state
            tracker = MemTracker()
            tracker.track_external(model, optimizer, images, labels)
            with tracker:
                nn.functional.cross_entropy(model(images), labels).backward()
                optimizer.step()
                optimizer.zero_grad()
            (theirs,) = (s["Total"] for s in tracker.get_tracker_snapshot("peak").values())
    ours = plan(cifar_resnet(20, 10), SMALL, batch_size=64, num_modules=[], device="cpu").end_to_end.step.peak
    assert ours == theirs + 64 * 10 * 4 + 8, "and what a local step returns: the logits, two scalars"


def test_a_plan_is_consistent():
    found = plan(cifar_resnet(20, 10), SMALL, batch_size=64, num_modules=[2, 4, 40], objective=Greedy())
    names = [row.method for row in found.rows]
    assert names == [
        *("end to end", "checkpoint per block", "checkpoint 2 segments", "checkpoint 4 segments"),
        *("accumulate 4 parts", "local K = 2", "local K = 4"),
        *("local K = 2 + checkpoint", "local K = 4 + checkpoint"),
    ]
    for row in found.rows:
        assert set(row.step.at_peak) == set(KINDS) and sum(row.step.at_peak.values()) == row.step.peak
        assert len(row.step.saved) == row.num_modules == len(row.cuts) + 1
    whole, checkpointed, segments, _, accumulated = (row.step for row in found.rows[:5])
    assert (
        checkpointed.peak < segments.peak < whole.peak and whole.flops < segments.flops < checkpointed.flops
    )
    for k in (2, 4):
        assert found.local(k, "blocks").step.peak < found.local(k).step.peak
        assert found.local(k, "blocks").cuts == found.local(k).cuts
    assert found.local(4).step.peak < found.local(2).step.peak < whole.peak
    # the stem's backward pass costs less than twice its forward: it has no gradient to pass on
    assert 4 / 3 < checkpointed.flops / whole.flops < 1.34
    assert accumulated.flops == pytest.approx(whole.flops) and accumulated.peak < whole.peak / 2
    assert accumulated.at_peak["gradients"] == 4 * sum(
        -(-p.numel() // 128) * 128 for p in cifar_resnet(20, 10).parameters()
    ), "those of the parts before are there from the start"
    assert any("K = 40: the network has 10 blocks" in line for line in found.not_counted)
    with pytest.raises(BadInput, match=r"no row of the plan has this K: got 3; allowed: \[2, 4\]"):
        found.local(3)


def test_a_plan_scales_with_the_batch_and_with_the_precision():
    def peaks(**options):
        found = plan(cifar_resnet(20, 10), SMALL, num_modules=[2], objective=Greedy(), **options)
        return [found.local(2).step.at_peak["activations"]]

    (one,), (two,) = peaks(batch_size=64), peaks(batch_size=128)
    (half,) = peaks(batch_size=64, precision="bfloat16")
    assert two == pytest.approx(2 * one, rel=0.01) and half < 0.7 * one


def test_optimizers_are_followed():
    model = cifar_resnet(20, 10)
    size = sum(p.numel() for p in model.parameters()) * 4

    def state(optimizer):
        found = plan(model, SMALL, num_modules=[], optimizer=optimizer, device="cpu")
        return found.end_to_end.step.at_peak["optimizer"]

    assert state("sgd") == size
    assert size * 2 <= state("adamw") <= size * 2 + 4 * 100
    assert state(lambda parameters: torch.optim.SGD(parameters, lr=0.1)) == 0
    with pytest.raises(UnknownName, match="unknown optimizer"):
        state("adam-w8")


def test_planning_leaves_no_trace_and_allocates_nothing():
    model = torchvision.models.resnet18(num_classes=10).eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    stream, call = torch.get_rng_state(), nn.Module.__call__
    found = plan(model, torch.empty(2, 3, 224, 224, device="meta"), batch_size=4096, num_modules=[2])
    assert found.end_to_end.step.peak > 64 * 2**30, "more than this machine has"
    assert torch.equal(stream, torch.get_rng_state()) and nn.Module.__call__ is call
    assert not model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_network_without_weights_can_be_planned():
    with torch.device("meta"):
        model = torchvision.models.resnet18(num_classes=10)
    found = plan(model, torch.empty(2, 3, 64, 64, device="meta"), num_modules=[2])
    real = plan(torchvision.models.resnet18(num_classes=10), torch.rand(2, 3, 64, 64), num_modules=[2])
    assert found.local(2).step == real.local(2).step


def test_segmentation_and_tokens_are_planned_without_a_task():
    network = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=5)
    found = plan(network, torch.empty(16, 3, 64, 64, device="meta"), num_modules=[4], objective=Greedy())
    assert found.local(4).step.peak < found.end_to_end.step.peak
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    tokens = nn.Sequential(nn.Embedding(50, 16), nn.TransformerEncoder(layer, 4), nn.Linear(16, 50))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        words = plan(tokens, torch.zeros(4, 7, dtype=torch.int64), num_modules=[2], objective=Greedy())
    assert words.local(2).step.peak > 0


def test_a_step_leaves_nothing_for_the_garbage_collector():
    """A cycle would keep activations alive until some collection: the peak would be a matter of luck."""
    images, labels = torch.rand(4, 3, 32, 32), torch.arange(4)
    local = infopro.localize(cifar_resnet(20, 10), images, num_modules=3, objective=InfoPro(), task=TASK)
    local.backward(images, labels)
    gc.collect()
    gc.disable()
    try:
        local.backward(images, labels)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert [type(g) for g in gc.garbage if isinstance(g, torch.Tensor)] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_the_table_reads_as_a_table():
    text = str(plan(cifar_resnet(20, 10), SMALL, batch_size=64, num_modules=[2], memory="1GiB"))
    lines = text.splitlines()
    assert lines[0] == "One training step of CifarResNet, input 3x32x32: predicted memory"
    table = lines[: next(n for n, line in enumerate(lines) if line.startswith("K = 2"))]
    assert max(map(len, table)) <= 150
    for word in (
        "peak",
        "activations",
        "optimizer",
        "K = 2: cut behind",
        "Not counted:",
        "1.00 GiB: end to",
    ):
        assert word in text


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_modules": [0]}, BadConfiguration, "num_modules must be 1 or more"),
        ({"batch_size": 0}, BadConfiguration, "batch_size must be 1 or more, got 0"),
        (
            {"precision": "float16"},
            BadConfiguration,
            "unknown precision 'float16', allowed: float32, bfloat16",
        ),
        ({"device": "tpu"}, BadConfiguration, "unknown device 'tpu'"),
        ({"batch_size": "largest"}, BadConfiguration, "the largest batch needs a budget"),
        ({"objective": EndToEnd()}, BadConfiguration, "end to end beside a local objective: got end-to-end"),
        ({"memory": "8 lots"}, BadConfiguration, "a memory size cannot be read: got '8 lots'"),
        ({"memory": 0}, BadConfiguration, "a memory size cannot be read: got 0"),
    ],
)
def test_wrong_wishes_are_explained(options, error, message):
    with pytest.raises(error, match=message):
        plan(cifar_resnet(20, 10), SMALL, **options)


def test_an_input_that_the_network_cannot_take_is_explained():
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=64, depth=2)
    with pytest.raises(
        BadInput, match=r"cannot take the example input: got \[2, 3, 100, 64\] float32 \(Input"
    ):
        plan(vit, torch.empty(2, 3, 100, 64, device="meta"))
    with pytest.raises(BadInput, match="no tensor with a batch dimension"):
        plan(vit, "image.png")


def test_low_precision_copies_of_weights_live_as_long_as_their_module(monkeypatch):
    network = nn.Sequential(*(nn.Sequential(nn.Linear(256, 256), nn.ReLU()) for _ in range(8)))
    planner = Planner(
        network,
        (torch.rand(2, 256),),
        objective=infopro.objectives.Greedy(),
        task=infopro.tasks.Classification(num_classes=256),
        precision=torch.bfloat16,
        on_cuda=False,
    )
    local = planner.build(["1", "3", "5"])
    peak = planner.track(local, 2, stepping=False).peak
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: None)
    copies = sum(2 * p.numel() for stage in local.stages[:3] for p in stage.part.parameters())
    assert planner.track(local, 2, stepping=False).peak >= peak + copies // 2
