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
    DoesNotFit,
    checkpoint_segments,
    format_bytes,
    measure,
    measure_saved_bytes,
    parse_bytes,
    plan,
)
from infopro.memory.planner import Planner
from infopro.memory.recomputing import fewest, order
from infopro.memory.tracker import KINDS
from infopro.models import cifar_resnet
from infopro.models.cifar_densenet import CifarDenseNet
from infopro.objectives import DGL, EndToEnd, Greedy, InfoPro

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


def test_a_budget_is_answered_with_the_smallest_k():
    model, options = cifar_resnet(20, 10), {"batch_size": 256, "objective": Greedy()}
    rows = plan(model, SMALL, num_modules=(2, 3), **options)
    for k in (2, 3):
        budget = rows.local(k).step.peak
        assert rows.local(k - 1).step.peak > budget if k > 2 else rows.end_to_end.step.peak > budget
        answer = plan(model, SMALL, num_modules=[], memory=budget, **options).answer
        assert answer.num_modules == k and f"K = {k} is the smallest" in answer.reason
    fits = plan(model, SMALL, num_modules=[], memory="10GiB", **options).answer
    assert fits.num_modules == 1 and "end to end" in fits.reason
    nothing = plan(model, SMALL, num_modules=[], memory="4MiB", **options).answer
    assert nothing.num_modules is None and "nothing fits into 4.00 MiB at batch size 256" in nothing.reason
    alone = plan(model, SMALL, num_modules=[], memory="1MB", **options).answer
    assert alone.num_modules is None and "parameters and the optimizer state alone need" in alone.reason


def test_as_few_blocks_run_again_as_a_budget_needs():
    model, images = cifar_resnet(20, 10), torch.rand(16, 3, 32, 32)
    planner = Planner(model, (images,), objective=Greedy(), task=TASK)
    none, least = (planner.local(3, 16, checkpoint)[1].peak for checkpoint in ("none", "blocks"))
    budget, by_worth = (none + least) // 2, order(planner, 16, 3)
    chosen = fewest(planner, by_worth, lambda some: planner.local(3, 16, some)[1].peak <= budget)
    assert sorted(by_worth) == sorted(planner.chooser.units) and 0 < len(chosen) < len(by_worth)
    assert set(chosen) == set(by_worth[: len(chosen)]), "those that are worth most"
    assert planner.local(3, 16, chosen)[1].peak <= budget
    assert planner.local(3, 16, by_worth[: len(chosen) - 1])[1].peak > budget, "one less is too few"


def test_a_budget_decides_by_itself():
    with pytest.raises(BadConfiguration, match="memory decides by itself what is checkpointed"):
        infopro.localize(
            *(cifar_resnet(20, 10), torch.rand(4, 3, 32, 32)),
            memory="8GiB",
            checkpoint="blocks",
            objective=DGL(),
            task=TASK,
        )


def test_the_largest_batch_is_the_largest():
    model = cifar_resnet(20, 10)
    options = {"num_modules": [4], "objective": Greedy()}
    budget = 60 * 2**20
    found = plan(model, SMALL, batch_size="largest", memory=budget, **options)
    whole, local = found.rows
    assert whole.batch_size < local.batch_size
    for row in found.rows:
        assert row.step.peak <= budget
        above = plan(model, SMALL, batch_size=row.batch_size + 1, **options)
        same = above.end_to_end if row.num_modules == 1 else above.local(4)
        assert same.step.peak > budget
    with pytest.raises(DoesNotFit, match=r"K = 4 does not fit into 3.00 MiB"):
        plan(model, SMALL, batch_size="largest", memory="3MiB", **options)


def test_localize_finds_the_k_that_fits():
    model, images = cifar_resnet(20, 10), torch.rand(64, 3, 32, 32)
    peak = plan(model, images, num_modules=[3], objective=DGL(), task=TASK).local(3).step.peak
    local = infopro.localize(model, images, memory=peak, objective=DGL(), task=TASK)
    assert local.split.num_modules == 3
    with pytest.raises(DoesNotFit, match=r"nothing fits into 4.00 MiB"):
        infopro.localize(model, images, memory="4MiB", objective=DGL(), task=TASK)


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


def test_sizes_are_read_and_written():
    sizes = {"8GiB": 8 * 2**30, "500 MB": 500_000_000, "1.5k": None, "2tib": 2 * 2**40, 4096: 4096, "12B": 12}
    for text, size in sizes.items():
        if size is not None:
            assert parse_bytes(text) == size
    assert [format_bytes(n) for n in (0, 999, 1000, 10 * 2**20, 123 * 2**20, 2**40)] == [
        *("0 B", "999 B", "0.98 KiB", "10.0 MiB", "123 MiB", "1024 GiB"),
    ]


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
