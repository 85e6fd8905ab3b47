"""Stepping stage by stage: the same weights, and the gradients of one module at a time."""

import pytest
import torch
from torch import nn

import infopro
from infopro.data import ImageData, ImageTensors
from infopro.engines import OneProcess, StageSteps
from infopro.errors import BadInput
from infopro.training import (
    Checkpoint,
    load_checkpoint,
    make_optimizer,
    make_schedule,
    save_checkpoint,
    train,
)

CLASSES, SIDE = 3, 8
MAKERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, foreach=True),
}


class Tied(nn.Module):
    """Its first and last convolution share a weight."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))
        self.blocks[2].weight = self.blocks[0].weight
        self.stem, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, CLASSES)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x).relu()
        return self.head(x.mean((2, 3)))


def build(make_network=None, **options):
    torch.manual_seed(0)
    model = make_network() if make_network else infopro.models.cifar_resnet(8, CLASSES)
    return infopro.localize(
        model,
        torch.rand(2, 3, SIDE, SIDE),
        **{"num_modules": 3, "balance": "depth", "objective": infopro.objectives.InfoPro(), **options},
        task=infopro.tasks.Classification(num_classes=CLASSES),
    )


def batches(number):
    torch.manual_seed(1)
    return [(torch.rand(6, 3, SIDE, SIDE), torch.randint(CLASSES, (6,))) for _ in range(number)]


def assert_equal_state(left, right):
    """Weights, buffers and optimizer state of two (local, optimizer), bit for bit."""
    for (key, ours), theirs in zip(left[0].state_dict().items(), right[0].state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), key
    pairs = zip(left[0].parameters(), right[0].parameters(), strict=True)
    for ours, theirs in ((left[1].state[a], right[1].state[b]) for a, b in pairs):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(torch.as_tensor(ours[k]), torch.as_tensor(theirs[k])) for k in ours)


@pytest.mark.parametrize("network", [None, Tied], ids=["resnet", "tied"])
@pytest.mark.parametrize("name", MAKERS)
def test_weights_are_those_of_one_step_at_the_end(network, name):
    whole, staged = build(network), build(network)
    optimizers = [MAKERS[name](local.parameters()) for local in (whole, staged)]
    start = [parameter.detach().clone() for parameter in staged.parameters()]
    steps = StageSteps(staged, optimizers[1])
    for images, labels in batches(3):
        whole.backward(images, labels)
        optimizers[0].step()
        optimizers[0].zero_grad()
        staged.backward(images, labels, on_stage_done=steps)
    assert_equal_state((whole, optimizers[0]), (staged, optimizers[1]))
    moved = [not torch.equal(a, b) for a, b in zip(start, staged.parameters(), strict=True)]
    assert all(moved) and len(moved) > 10


def test_live_networks_step_stage_by_stage_too():
    whole, staged = build(record=False), build(record=False)
    optimizers = [MAKERS["sgd"](local.parameters()) for local in (whole, staged)]
    for images, labels in batches(2):
        whole.backward(images, labels)
        optimizers[0].step()
        optimizers[0].zero_grad()
        staged.backward(images, labels, on_stage_done=StageSteps(staged, optimizers[1]))
    assert staged.split.live
    assert_equal_state((whole, optimizers[0]), (staged, optimizers[1]))


def test_gradients_of_one_stage_exist_at_a_time():
    local = build()
    optimizer = MAKERS["sgd"](local.parameters())
    steps, seen = StageSteps(local, optimizer), []

    def look(index):
        seen.append({p for p in local.parameters() if p.grad is not None})
        steps(index)

    local.backward(*batches(1)[0], on_stage_done=look)
    assert seen == [set(stage.parameters()) for stage in local.stages]
    assert all(parameter.grad is None for parameter in local.parameters())


def test_accumulated_gradients_wait_for_their_stage():
    whole, staged = build(), build()
    optimizers = [MAKERS["adamw"](local.parameters()) for local in (whole, staged)]
    (first, second) = batches(2)
    for local in (whole, staged):
        local.backward(*first)
    whole.backward(*second)
    optimizers[0].step()
    staged.backward(*second, on_stage_done=StageSteps(staged, optimizers[1]))
    assert_equal_state((whole, optimizers[0]), (staged, optimizers[1]))


def test_the_optimizer_steps_outside_of_autocast():
    seen = []

    class Watched(torch.optim.SGD):
        def step(self):
            seen.append(torch.is_autocast_enabled("cpu"))
            super().step()

    local = build()
    steps = StageSteps(local, Watched(local.parameters(), lr=0.1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        local.backward(*batches(1)[0], on_stage_done=steps)
        assert torch.is_autocast_enabled("cpu")
    assert seen == [False] * 3


def test_an_optimizer_of_another_model_is_refused():
    with pytest.raises(BadInput, match="another model"):
        StageSteps(build(), MAKERS["sgd"](build().parameters()))


def colours(size):
    generator = torch.Generator().manual_seed(size)
    labels = torch.arange(size) % CLASSES
    pixels = torch.randint(100, (size, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    pixels[torch.arange(size), labels] += 100
    return ImageTensors(pixels, labels)


def data():
    return ImageData(
        name="colours",
        train=colours(30),
        test=colours(12),
        num_classes=CLASSES,
        class_names=("red", "green", "blue"),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        image_shape=(3, SIDE, SIDE),
        augmentation=None,
    )


def run(local, optimizer, engine, epochs=2, **options):
    return train(
        local,
        data(),
        optimizer=optimizer,
        engine=engine,
        epochs=epochs,
        schedule=make_schedule("cosine", base=0.1, epochs=2, warmup_epochs=0),
        batch_size=8,
        seed=3,
        device=torch.device("cpu"),
        **options,
    )


def optimizer_of(local, name="sgd"):
    return make_optimizer(name, local.parameters(), learning_rate=0.1, weight_decay=1e-4)


def numbers(records):
    return [(r.losses, r.train_error, r.test_error, r.test_loss, r.learning_rate) for r in records]


@pytest.mark.parametrize("name", MAKERS)
def test_the_training_loop_steps_so_and_checkpoints_are_interchangeable(tmp_path, name):
    whole, staged, resumed = build(), build(), build()
    optimizers = [optimizer_of(local, name) for local in (whole, staged, resumed)]
    expected = run(whole, optimizers[0], None)

    def save(position):
        if position.epoch == 1:
            path = save_checkpoint(tmp_path, staged, optimizers[1], Checkpoint(1, 0.0, {}))
            load_checkpoint(path, resumed, optimizers[2])
            starts.append(position)

    starts = []
    found = run(staged, optimizers[1], OneProcess(staged, optimizer=optimizers[1]), save=save)
    rest = run(resumed, optimizers[2], OneProcess(resumed), start=starts[0])
    assert numbers(expected) == numbers(found) and numbers(expected[1:]) == numbers(rest)
    assert_equal_state((whole, optimizers[0]), (staged, optimizers[1]))
    assert_equal_state((whole, optimizers[0]), (resumed, optimizers[2]))


def test_the_loop_refuses_another_optimizer_than_the_engine_steps():
    local = build()
    engine = OneProcess(local, optimizer=optimizer_of(local))
    with pytest.raises(BadInput, match="another optimizer"):
        run(local, optimizer_of(local), engine)
