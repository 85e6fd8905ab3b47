import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import infopro
from infopro.errors import BadConfiguration, BadInput, BadSplit
from infopro.memory import DoesNotFit, measure_saved_bytes
from infopro.models import cifar_resnet
from infopro.models.cifar_resnet import CifarResNet
from infopro.objectives import DGL, EndToEnd, Greedy, InfoPro, from_name, list_objectives

SHAPE = (3, 16, 16)


def network():
    torch.manual_seed(0)
    return CifarResNet(blocks=(2, 1, 1), widths=(4, 8, 8), num_classes=3, in_channels=3)


def build(objective=None, *, model=None, dtype=torch.float32, **where):
    return infopro.localize(
        model or network(),
        torch.rand(2, *SHAPE, dtype=dtype),
        objective=objective or InfoPro(),
        task=infopro.tasks.Classification(num_classes=3),
        **(where or {"num_modules": 4, "balance": "depth"}),
    )


def batch(size=6, shape=SHAPE):
    return torch.rand(size, *shape, generator=torch.Generator().manual_seed(1)), torch.arange(size) % 3


@pytest.mark.parametrize(
    ("objective", "where", "error", "message"),
    [
        (
            Greedy(),
            {"num_modules": None},
            BadSplit,
            "give one of num_modules, cuts and memory: got none of them",
        ),
        (Greedy(), {"num_modules": 2, "cuts": ["layer1"]}, BadSplit, "give one of num_modules, cuts"),
        (Greedy(), {"num_modules": 9}, BadSplit, "got num_modules=9; allowed: 1 to 5"),
        (EndToEnd(), {"num_modules": 4}, BadSplit, "EndToEnd trains the network as 1 module: got 4 modules"),
        (
            EndToEnd(),
            {"cuts": ["layer1"]},
            BadSplit,
            "EndToEnd trains the network as 1 module: got 2 modules",
        ),
        (Greedy(), {"num_modules": 2, "balance": "size"}, BadConfiguration, "unknown balance: got 'size'"),
        (Greedy(), {"num_modules": 2, "memory": "8GiB"}, BadSplit, "got num_modules=2, memory='8GiB'"),
        (Greedy(), {"num_modules": 0}, BadSplit, "got num_modules=0; allowed: 1 to 5"),
        (Greedy(), {"memory": "8 lots"}, BadConfiguration, "a memory size cannot be read: got '8 lots'"),
        (Greedy(), {"memory": "10KiB"}, DoesNotFit, "the parameters and the optimizer state alone need"),
    ],
)
def test_contradicting_arguments_are_explained(objective, where, error, message):
    with pytest.raises(error, match=message):
        build(objective, **where)


def test_end_to_end_needs_no_cuts():
    for where in ({"num_modules": None}, {"num_modules": 1}, {"cuts": []}):
        local = build(EndToEnd(), **where)
        assert local.split.num_modules == 1 and local.split.cuts == ()


def test_first_input_must_be_a_tensor():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, inputs):
            return self.layer(inputs["x"])

    task = infopro.tasks.Classification(num_classes=3)
    with pytest.raises(BadInput, match="the first input must be a tensor: got dict"):
        infopro.localize(Named(), ({"x": torch.zeros(2, 4)},), num_modules=1, objective=Greedy(), task=task)


def test_output_that_does_not_fit_the_task_is_refused_at_once():
    with pytest.raises(
        BadInput, match=r"output does not fit the task: got shape \[2, 10\]; allowed: \[N, 3\]"
    ):
        build(model=cifar_resnet(20, 10))


def test_the_split_is_described():
    local = build(Greedy())
    assert local.split.cuts == ("layer1.0", "layer1.1", "layer2.0")
    assert local.split.boundary_shapes == ((4, 16, 16), (4, 16, 16), (8, 8, 8))
    assert local.split.carried == (0, 0, 0) and local.split.num_modules == 4
    assert build(Greedy(), cuts=["layer1.1"]).split.cuts == ("layer1.1",)


@pytest.mark.parametrize(
    ("objective", "heads"),
    [
        (InfoPro(), ["reconstruction", "task"]),
        (InfoPro(task_loss="contrast"), ["reconstruction", "task"]),
        (InfoPro(reconstruction_weight=None), ["task"]),
        (Greedy(), ["task"]),
        (DGL(), ["task"]),
    ],
)
def test_losses_carry_the_names_of_the_heads(objective, heads):
    local = build(objective)
    out = local.backward(*batch())
    assert [list(stage.heads) for stage in local.stages] == [heads, heads, heads, []]
    assert [list(losses) for losses in out.losses] == [[*heads, "total"]] * 3 + [["task", "total"]]
    assert out.logits.shape == (6, 3)
    values = [out.logits, *(value for losses in out.losses for value in losses.values())]
    assert not any(value.requires_grad for value in values)


def test_the_model_stays_the_callers():
    model, plain = network(), network()
    keys, identities = list(model.state_dict()), [id(p) for p in model.parameters()]
    local = build(model=model)
    assert local.model is model
    local.backward(*batch())
    assert list(model.state_dict()) == keys == list(local.model.state_dict())
    assert [id(p) for p in model.parameters()] == identities
    assert all(torch.equal(value, plain.get_parameter(name)) for name, value in model.named_parameters())
    model.eval()
    assert torch.equal(local(batch()[0]), model(batch()[0]))


@pytest.mark.parametrize("name", list_objectives())
def test_parameters_are_the_networks_and_the_heads_once_each(name):
    objective = from_name(name)
    local = build(objective, num_modules=objective.num_modules or 4)
    found = [id(p) for p in local.parameters()]
    network_and_heads = [
        *local.model.parameters(),
        *(p for stage in local.stages for head in stage.heads.values() for p in head.parameters()),
    ]
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for p in network_and_heads}
    stages = [id(p) for stage in local.stages for p in stage.parameters()]
    assert sorted(stages) == sorted(found), "each parameter belongs to exactly one stage"


def test_gradients_accumulate():
    local = build(Greedy())
    local.backward(*batch())
    once = [p.grad.clone() for p in local.parameters()]
    local.eval()
    local.train()
    local.backward(*batch())
    assert all(
        torch.allclose(p.grad, 2 * g, rtol=1e-4, atol=1e-6)
        for p, g in zip(local.parameters(), once, strict=True)
    )


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda local: pickle.loads(pickle.dumps(local))])
def test_copies_are_independent_and_train_alike(copy_of):
    local = build()
    local.backward(*batch())
    twin = copy_of(local)
    for model in (local, twin):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer.zero_grad()
        model.backward(*batch())
        optimizer.step()
    assert not {id(p) for p in local.parameters()} & {id(p) for p in twin.parameters()}
    parts = {id(p) for stage in twin.stages for p in stage.parameters()}
    assert parts == {id(p) for p in twin.parameters()}, "the copy's parts are those of the copy's network"
    same = [
        torch.equal(a, b)
        for a, b in zip(local.state_dict().values(), twin.state_dict().values(), strict=True)
    ]
    assert all(same)
    torch.optim.SGD(twin.parameters(), lr=0.1).step()
    assert not torch.equal(local.model.conv1.weight, twin.model.conv1.weight)


def test_state_dict_goes_through_a_file():
    local, other = (
        build(),
        build(model=CifarResNet(blocks=(2, 1, 1), widths=(4, 8, 8), num_classes=3, in_channels=3)),
    )
    local.backward(*batch())
    file = io.BytesIO()
    torch.save(local.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    first, second = local.backward(*batch()), other.backward(*batch())
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(first.losses[1]["reconstruction"], second.losses[1]["reconstruction"])


@pytest.mark.parametrize("name", list_objectives())
def test_autocast_gives_finite_gradients_near_the_exact_ones(name):
    objective = from_name(name)
    local = build(objective, num_modules=objective.num_modules or 4)
    exact = local.backward(*batch())
    gradients = torch.cat([p.grad.flatten() for p in local.parameters()])
    local.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = local.backward(*batch())
    rounded = torch.cat([p.grad.flatten() for p in local.parameters()])
    assert rounded.isfinite().all() and rounded.dtype == torch.float32
    assert not torch.equal(rounded, gradients)
    assert torch.cosine_similarity(rounded, gradients, dim=0) > 0.9
    for index, losses in enumerate(out.losses):
        assert float(losses["total"]) == pytest.approx(float(exact.losses[index]["total"]), rel=0.05)


@pytest.mark.parametrize("name", list_objectives())
def test_a_network_in_bfloat16_has_heads_in_bfloat16(name):
    objective = from_name(name)
    local = build(
        objective,
        model=network().bfloat16(),
        dtype=torch.bfloat16,
        num_modules=objective.num_modules or 4,
    )
    images, labels = batch()
    out = local.backward(images.bfloat16(), labels)
    assert {p.dtype for p in local.parameters()} == {torch.bfloat16}
    assert all(p.grad.dtype == torch.bfloat16 and p.grad.isfinite().all() for p in local.parameters())
    assert all(value.dtype == torch.float32 for losses in out.losses for value in losses.values())
    assert local.task.mean.dtype == torch.float32, "images are brought back to [0, 1] exactly"


def test_the_largest_module_saves_less_than_the_network():
    local, end_to_end = build(Greedy()), build(EndToEnd(), num_modules=1)
    modules = measure_saved_bytes(local, *batch())
    whole = measure_saved_bytes(end_to_end, *batch())
    assert len(modules.per_module) == 4 and len(whole.per_module) == 1
    assert modules.largest < whole.largest < sum(modules.per_module)


class Kept:
    """What autograd holds in place of a saved tensor: it dies with the graph."""

    def __init__(self, tensor):
        self.tensor = tensor


def test_activations_of_one_module_live_at_a_time():
    local = build()
    kept, alive = [], []

    def pack(tensor):
        box = Kept(tensor)
        kept.append(weakref.ref(box))
        return box

    def note(_):
        alive.append(sum(box() is not None for box in kept))

    gc.disable()  # reference counts alone must free them
    try:
        with saved_tensors_hooks(pack, lambda box: box.tensor):
            out = local.backward(*batch(), on_stage_done=note)
    finally:
        gc.enable()
    assert len(kept) > 50
    assert alive == [0, 0, 0, 0], "backward has freed every module's graph before the next one runs"
    assert out.logits.grad_fn is None


def test_stages_are_reported_in_order_with_complete_gradients():
    local = build()
    seen = []

    def note(index):
        done = [all(p.grad is not None for p in stage.parameters()) for stage in local.stages]
        seen.append((index, done))

    local.backward(*batch(), on_stage_done=note)
    assert seen == [(k, [j <= k for j in range(4)]) for k in range(4)]


@pytest.mark.parametrize("before", [True, False])
def test_a_frozen_module_keeps_its_weights_and_the_others_train_alike(before):
    whole, model = build(Greedy()), network()
    if before:
        freeze(model)
    local = build(Greedy(), model=model)
    freeze(model)
    assert local.split == whole.split
    expected, found = whole.backward(*batch()), local.backward(*batch())
    assert torch.equal(expected.logits, found.logits)
    assert torch.equal(expected.losses[0]["total"], found.losses[0]["total"])
    gradients = {name: p.grad for name, p in whole.named_parameters()}
    for name, parameter in local.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(parameter.grad, gradients[name]), name
        else:
            assert parameter.grad is None and name.startswith(("model.conv1", "model.bn1", "model.layer1.0"))
    assert infopro.parity_check(local, *batch()).passed


def freeze(model):
    for part in (model.conv1, model.bn1, model.layer1[0]):
        part.requires_grad_(False)


def test_a_stage_that_is_frozen_with_its_heads_still_reports_its_losses():
    local, whole = build(Greedy()), build(Greedy())
    for parameter in local.stages[1].parameters():
        parameter.requires_grad_(False)
    found, expected = local.backward(*batch()), whole.backward(*batch())
    assert torch.equal(found.losses[1]["total"], expected.losses[1]["total"])
    assert all(p.grad is None for p in local.stages[1].parameters())
    assert all(p.grad is not None for k in (0, 2, 3) for p in local.stages[k].parameters())


def test_images_of_another_size_are_refused_where_heads_were_built_for_theirs():
    message = r"the heads were built for images of another size: got \[3, 24, 24\]; allowed: \[3, 16, 16\]"
    for objective in (Greedy(), InfoPro()):
        local = build(objective)
        with pytest.raises(BadInput, match=message):
            local.backward(*batch(shape=(3, 24, 24)))
        assert all(p.grad is None for p in local.parameters())
    images, labels = batch(shape=(3, 24, 24))
    assert build(EndToEnd(), num_modules=1).backward(images, labels).logits.shape == (6, 3)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (lambda x: x, lambda y: y + 1, r"a label is out of range: got 3 at index 2; allowed: 0 to 2"),
        (lambda x: x, lambda y: y - 1, r"a label is out of range: got -1 at index 0"),
        (lambda x: x, lambda y: y[:4], "labels do not pair with images"),
        (lambda x: x, lambda y: y.float(), "labels are not int64"),
        (lambda x: x / 0, lambda y: y, "images are not finite"),
        (lambda x: x * 4 - 2, lambda y: y, r"with mean and std undone they leave \[0, 1\]"),
    ],
)
def test_a_wrong_first_batch_is_explained_before_anything_is_computed(images, labels, message):
    local = build()
    before = copy.deepcopy(local.state_dict())
    x, y = batch()
    with pytest.raises(BadInput, match=message):
        local.backward(images(x), labels(y))
    assert all(p.grad is None for p in local.parameters())
    assert all(torch.equal(value, before[name]) for name, value in local.state_dict().items())
    with pytest.raises(BadInput, match=message):
        local.check(images(x), labels(y))


def test_only_the_first_batch_is_checked(monkeypatch):
    local = build()
    checked = []
    monkeypatch.setattr(local.task, "check", lambda images, targets: checked.append(len(images)))
    for size in (6, 5, 4):
        local.backward(*batch(size))
    assert checked == [6]
    local.check(*batch(3))
    assert checked == [6, 3]


def test_a_batch_that_was_refused_is_not_counted_as_checked():
    local = build()
    for _ in range(2):
        with pytest.raises(BadInput, match="out of range"):
            local.backward(batch()[0], torch.full((6,), 3))


def test_evaluation_mode_uses_the_running_statistics():
    local = build(Greedy())
    local.backward(*batch())
    local.eval()
    before = copy.deepcopy(local.state_dict())
    out = local.backward(*batch())
    assert torch.equal(out.logits, local(batch()[0]))
    assert all(torch.equal(value, before[name]) for name, value in local.state_dict().items())


def test_further_inputs_may_be_scalars_and_nested():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)

        def forward(self, x, scale, options):
            return (self.second(self.first(x) * scale) + options["shift"]).mean((2, 3))

    torch.manual_seed(0)
    inputs = (torch.rand(2, *SHAPE), torch.tensor(2.0), {"shift": torch.rand(2, 1, 1, 1)})
    local = infopro.localize(
        Scaled(),
        inputs,
        cuts=["first"],
        objective=Greedy(),
        task=infopro.tasks.Classification(num_classes=3),
    )
    images, labels = batch()
    more = (images, torch.tensor(3.0), {"shift": torch.rand(6, 1, 1, 1)})
    assert torch.equal(local.backward(more, labels).logits, local.model(*more))
    assert infopro.parity_check(local, more, labels).passed
