"""A network that rests on disk trains as one in memory does, with no more on the device than is allowed."""

import time

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import infopro
from infopro.data import ImageData, ImageTensors
from infopro.engines import OneProcess, Phase, Streaming, Work
from infopro.errors import BadConfiguration, BadInput, NotYetSupported
from infopro.memory import DoesNotFit
from infopro.training import (
    Checkpoint,
    load_checkpoint,
    make_optimizer,
    make_schedule,
    save_checkpoint,
    train,
)
from infopro.types import Batch

CLASSES, SIDE = 3, 8
CPU = torch.device("cpu")


def block(in_channels, channels):
    convolution = nn.Conv2d(in_channels, channels, 3, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.Dropout(0.1))


class UNet(nn.Module):
    """Skips cross the cuts."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.up1 = block(3, 4), block(4, 8), block(12, 4)
        self.classifier = nn.Linear(4, CLASSES)

    def forward(self, x):
        first = self.down1(x)
        second = F.interpolate(self.down2(F.max_pool2d(first, 2)), scale_factor=2)
        return self.classifier(self.up1(torch.cat([first, second], 1)).mean((2, 3)))


def vit():
    """Its position table and class token belong to no block."""
    sizes = {"img_size": SIDE, "patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2}
    return timm.models.VisionTransformer(**sizes, num_classes=CLASSES, drop_path_rate=0.3)


NETWORKS = {
    "resnet": lambda: infopro.models.cifar_resnet(8, CLASSES).to(memory_format=torch.channels_last),
    "unet": UNet,
    "vit": vit,
}
CUTS = {"unet": ["down1", "down2"]}


def example():
    return torch.rand(2, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)


def build(name="resnet", **options):
    torch.manual_seed(0)
    where = {"cuts": CUTS[name]} if name in CUTS else {"num_modules": 3, "balance": "depth"}
    return infopro.localize(
        NETWORKS[name](),
        example(),
        **{**where, "objective": infopro.objectives.InfoPro(), **options},
        task=infopro.tasks.Classification(num_classes=CLASSES),
    )


def optimizer_of(local, name="sgd"):
    return make_optimizer(name, local.parameters(), learning_rate=0.05, weight_decay=1e-3)


def streaming(local, optimizer, folder, **options):
    return Streaming(local, optimizer, example=example(), device=CPU, directory=folder, **options)


def works(number, size=6):
    generator = torch.Generator().manual_seed(1)
    phase = Phase(1, True, (size,) * number, (size,) * number)
    for step in range(number):
        images = torch.rand(size, 3, SIDE, SIDE, generator=generator)
        labels = torch.randint(CLASSES, (size,), generator=generator)
        yield Work(None, Batch(images, labels), phase, step)


def train_steps(engine, optimizer, number, precision=torch.float32):
    """What the loop does; returns all losses and logits."""
    found = []
    engine.local.train()
    for work in works(number):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            out = engine.backward(work, seed=work.step)
        if engine.optimizer is None:
            optimizer.step()
        found += [value for losses in out.losses for value in losses.values()] + [out.logits]
    return found


def everything(local, optimizer):
    """Weights, BatchNorm statistics, heads and optimizer state by name."""
    found = dict(local.state_dict())
    for name, parameter in local.named_parameters():
        for key, value in optimizer.state[parameter].items():
            found[f"{name}.{key}"] = torch.as_tensor(value)
    return found


def assert_equal(left, right):
    for (key, ours), (other, theirs) in zip(left.items(), right.items(), strict=True):
        assert key == other and torch.equal(ours, theirs), key


@pytest.mark.parametrize(
    ("network", "name", "precision"),
    [
        ("resnet", "sgd", torch.float32),
        ("resnet", "adamw", torch.float32),
        ("resnet", "sgd", torch.bfloat16),
        ("unet", "sgd", torch.float32),
        ("vit", "adamw", torch.float32),
    ],
)
def test_training_is_that_of_one_process_bit_for_bit(tmp_path, network, name, precision):
    plain, streamed = build(network), build(network)
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    optimizers = [optimizer_of(local, name) for local in (plain, streamed)]
    engine = streaming(streamed, optimizers[1], tmp_path, precision=precision)
    expected = train_steps(OneProcess(plain), optimizers[0], 3, precision)
    found = train_steps(engine, optimizers[1], 3, precision)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert_equal(everything(plain, optimizers[0]), everything(streamed, optimizers[1]))
    trained = [key for key, _ in plain.named_parameters()]
    assert not any(torch.equal(before[key], streamed.state_dict()[key]) for key in trained)


def owned_bytes(local, optimizer):
    """Parameters, buffers and optimizer state; the task's constants, which all modules read, stay."""
    constants = {id(tensor) for tensor in local.task.buffers()}
    tensors = [t for t in (*local.parameters(), *local.buffers()) if id(t) not in constants]
    states = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    return sum(tensor.nbytes for tensor in (*tensors, *states))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_every_weight_visits_the_device_once_a_step(tmp_path, name):
    local = build()
    optimizer = optimizer_of(local, name)
    engine = streaming(local, optimizer, tmp_path)
    without_state = owned_bytes(local, optimizer)
    train_steps(engine, optimizer, 1)
    whole = owned_bytes(local, optimizer)
    assert (engine.bytes_to_device, engine.bytes_from_device) == (without_state, whole)
    train_steps(engine, optimizer, 3)
    assert (engine.bytes_to_device, engine.bytes_from_device) == (without_state + 3 * whole, 4 * whole)
    local.eval()
    engine.predict(next(works(1)))
    assert engine.bytes_to_device == 2 * without_state + 3 * whole  # a test needs no optimizer state
    assert engine.bytes_from_device == 4 * whole


class Residents(TorchDispatchMode):
    """At every 50th operation: the bytes of parameters, buffers, gradients and state that no file backs."""

    def __init__(self, local, optimizer, folder):
        super().__init__()
        self.local, self.optimizer, self.folder = local, optimizer, folder
        self.most = self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.count += 1
        if self.count % 50 == 0:  # the system's answer takes a millisecond
            self.most = max(self.most, self.now())
        return result

    def now(self):
        owned = [*self.local.parameters(), *self.local.buffers()]
        gradients = [parameter.grad for parameter in self.local.parameters()]
        states = [value for state in list(self.optimizer.state.values()) for value in state.values()]
        storages = {}
        for tensor in (*owned, *gradients, *states):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
        files = mapped_files(self.folder)
        return sum(n for place, n in storages.items() if not any(a <= place < b for a, b in files))


def mapped_files(folder):
    """The address ranges of this process that are backed by files of a folder, as the system tells."""
    with open("/proc/self/maps") as lines:
        found = [line.split()[0].split("-") for line in lines if str(folder) in line]
    return [(int(start, 16), int(end, 16)) for start, end in found]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_device_never_holds_more_than_the_budget(tmp_path, name):
    local = build(num_modules=4, objective=infopro.objectives.DGL())
    optimizer = optimizer_of(local, name)
    with pytest.raises(DoesNotFit, match=r"module \d of 4 with its larger neighbour") as refused:
        streaming(local, optimizer, tmp_path, budget=1)
    budget = int(str(refused.value).split("give a budget of ")[1].split()[0])
    with pytest.raises(DoesNotFit):
        streaming(local, optimizer, tmp_path, budget=budget - 1)
    engine = streaming(local, optimizer, tmp_path, budget=budget)
    with Residents(local, optimizer, tmp_path) as residents:
        train_steps(engine, optimizer, 3)
    gradients = sum(parameter.nbytes for parameter in local.parameters())
    whole = owned_bytes(local, optimizer) + gradients
    largest = max(sum(p.nbytes for p in stage.parameters()) for stage in local.stages)
    assert largest * (3 if name == "sgd" else 4) <= residents.most <= budget < 0.8 * whole
    assert residents.most <= engine.most_resident_bytes <= budget


def test_what_is_not_streamed_would_be_seen(tmp_path):
    local = build()
    optimizer = optimizer_of(local)
    with Residents(local, optimizer, tmp_path) as residents:
        train_steps(OneProcess(local), optimizer, 2)
    assert residents.most >= owned_bytes(local, optimizer)


def test_state_that_was_not_foretold_does_not_leave_the_budget_unseen(tmp_path):
    class Hoarder(torch.optim.SGD):
        """Keeps more from its second step on."""

        def step(self):
            for parameter in self.param_groups[0]["params"]:
                if parameter.grad is not None and "momentum_buffer" in self.state[parameter]:
                    self.state[parameter].setdefault("more", torch.zeros(100, *parameter.shape))
            super().step()

    local = build()
    optimizer = Hoarder(local.parameters(), lr=0.1, momentum=0.9)
    engine = streaming(local, optimizer, tmp_path, budget=10 * owned_bytes(local, optimizer))
    train_steps(engine, optimizer, 1)
    with pytest.raises(DoesNotFit, match="more than was planned"):
        train_steps(engine, optimizer, 1)


def test_an_error_inside_a_step_leaves_a_whole_network_at_rest(tmp_path):
    plain, streamed = build(), build()
    optimizers = [optimizer_of(local) for local in (plain, streamed)]
    engine = streaming(streamed, optimizers[1], tmp_path)
    objective, good = streamed.stages[1].objective, streamed.stages[1].objective.forward
    objective.forward = lambda features, batch: 1 / 0
    with pytest.raises(ZeroDivisionError):
        train_steps(engine, optimizers[1], 1)
    objective.forward = good
    assert all(parameter.grad is None for parameter in streamed.parameters())
    optimizers[1].state.clear()  # the first module had been stepped
    streamed.load_state_dict(plain.state_dict())
    train_steps(OneProcess(plain), optimizers[0], 2)
    train_steps(engine, optimizers[1], 2)
    assert_equal(everything(plain, optimizers[0]), everything(streamed, optimizers[1]))


def colours(size):
    generator = torch.Generator().manual_seed(size)
    labels = torch.arange(size) % CLASSES
    pixels = torch.randint(100, (size, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    pixels[torch.arange(size), labels] += 100
    return ImageTensors(pixels, labels)


def run(local, optimizer, engine, epochs=2, **options):
    data = ImageData(
        name="colours",
        train=colours(28),
        test=colours(12),
        num_classes=CLASSES,
        class_names=("red", "green", "blue"),
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        image_shape=(3, SIDE, SIDE),
        augmentation=None,
    )
    schedule = make_schedule("cosine", base=0.1, epochs=2, warmup_epochs=0)
    settings = {"batch_size": 8, "seed": 3, "device": CPU, "schedule": schedule}
    return train(local, data, optimizer=optimizer, engine=engine, epochs=epochs, **settings, **options)


def numbers(records):
    return [(r.losses, r.train_error, r.test_error, r.test_loss, r.learning_rate) for r in records]


def test_the_training_loop_tests_saves_and_resumes(tmp_path):
    plain, streamed, resumed = build(), build(), build()
    optimizers = [optimizer_of(local, "adamw") for local in (plain, streamed, resumed)]
    saved = []

    def save(position):
        saved.append((position, save_checkpoint(tmp_path, streamed, optimizers[1], Checkpoint(1, 0.0, {}))))

    expected = run(plain, optimizers[0], None)
    first = run(streamed, optimizers[1], streaming(streamed, optimizers[1], tmp_path), epochs=1, save=save)
    engine = streaming(resumed, optimizers[2], tmp_path)
    load_checkpoint(saved[0][1], resumed, optimizers[2])
    second = run(resumed, optimizers[2], engine, start=saved[0][0])
    assert numbers(first + second) == numbers(expected)
    assert_equal(everything(plain, optimizers[0]), everything(resumed, optimizers[2]))


def test_weights_can_be_brought_home_and_leave_again(tmp_path):
    plain, streamed = build(), build()
    optimizers = [optimizer_of(local) for local in (plain, streamed)]
    engine = streaming(streamed, optimizers[1], tmp_path)
    train_steps(engine, optimizers[1], 2)
    images = next(works(1)).batch.images
    resting = streamed.model.eval()(images).detach()  # the network itself, from the mapped files
    assert torch.equal(engine.predict(next(works(1))), resting) and list(tmp_path.iterdir()) == []
    engine.bring_home()
    assert mapped_files(tmp_path) == [] and torch.equal(streamed.model(images), resting)
    train_steps(engine, optimizers[1], 2)
    for _ in range(2):
        train_steps(OneProcess(plain), optimizers[0], 2)
    assert_equal(everything(plain, optimizers[0]), everything(streamed, optimizers[1]))


class Tied(nn.Module):
    """Its first and last block share a weight."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.blocks[2].weight = self.blocks[0].weight
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x):
        for module in self.blocks:
            x = module(x).relu()
        return self.head(x.mean((2, 3)))


def test_what_cannot_be_streamed_is_refused(tmp_path):
    local = build()
    optimizer = optimizer_of(local)
    live = build(record=False)
    NETWORKS["tied"] = Tied
    tied = build("tied")
    with pytest.raises(NotYetSupported, match="run together only"):
        streaming(live, optimizer_of(live), tmp_path)
    with pytest.raises(NotYetSupported, match=r"blocks.0.weight|blocks.2.weight"):
        streaming(tied, optimizer_of(tied), tmp_path)
    with pytest.raises(NotYetSupported, match="LBFGS"):
        streaming(local, torch.optim.LBFGS(local.parameters()), tmp_path)
    with pytest.raises(BadConfiguration, match="give a directory"):
        streaming(local, optimizer, None)
    with pytest.raises(BadConfiguration, match="nowhere cannot hold"):
        streaming(local, optimizer, tmp_path / "nowhere")
    engine = streaming(local, optimizer, tmp_path)
    phase = Phase(1, True, (2,), (2,))
    with pytest.raises(BadInput, match="another size"):
        engine.backward(Work(None, Batch(torch.rand(2, 3, 4, 4), torch.zeros(2).long()), phase, 0), seed=0)


def test_while_a_module_computes_the_next_one_arrives_and_the_one_before_leaves(tmp_path):
    local = build()
    optimizer = optimizer_of(local)
    engine = streaming(local, optimizer, tmp_path)

    def here():
        files = mapped_files(tmp_path)
        places = [next(stage.parameters()).data_ptr() for stage in local.stages]
        return [k for k, place in enumerate(places) if not any(a <= place < b for a, b in files)]

    def watched(objective, expected):
        compute = objective.forward

        def forward(features, batch):
            for _ in range(1000):
                if here() == expected:
                    break
                time.sleep(0.01)
            assert here() == expected
            return compute(features, batch)

        objective.forward = forward

    for stage, expected in zip(local.stages, ([0, 1], [1, 2], [2]), strict=True):
        watched(stage.objective, expected)
    assert here() == []
    train_steps(engine, optimizer, 2)
    assert here() == []
