"""K processes compute what one computes, bit for bit: weights, statistics, optimizer state, log."""

import time
from dataclasses import asdict

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import infopro
from infopro.data import Augmentation, ImageData, ImageTensors
from infopro.engines import Pipeline, joined
from infopro.engines.ownership import check_separable, owned_names
from infopro.errors import BadConfiguration, NotYetSupported
from infopro.objectives import from_name
from infopro.training import make_optimizer, make_schedule, train

CLASSES, SIDE, EPOCHS = 3, 16, 2
CPU = torch.device("cpu")


def block(in_channels, channels, dropout=0.2):
    convolution = nn.Conv2d(in_channels, channels, 3, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.Dropout(dropout))


def tail(channels):
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]


class UNet(nn.Module):
    """Skips cross every cut, and one of them two cuts."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.middle = block(3, 4), block(4, 8), block(8, 8)
        self.up2, self.up1 = block(16, 4), block(8, 4)
        self.classifier = nn.Linear(4, CLASSES)

    def forward(self, x):
        first = self.down1(x)
        second = self.down2(F.max_pool2d(first, 2))
        deep = self.middle(F.max_pool2d(second, 2))
        up = self.up2(torch.cat([F.interpolate(deep, scale_factor=2), second], 1))
        up = self.up1(torch.cat([F.interpolate(up, scale_factor=2), first], 1))
        return self.classifier(up.mean((2, 3)))


def vit():
    return timm.models.VisionTransformer(
        img_size=SIDE,
        patch_size=8,
        embed_dim=16,
        depth=4,
        num_heads=2,
        num_classes=CLASSES,
        drop_path_rate=0.3,
        proj_drop_rate=0.1,
        class_token=False,
        global_pool="avg",
    )


NETWORKS = {
    "chain": lambda: nn.Sequential(block(3, 4), block(4, 6), block(6, 6), block(6, 6), *tail(6)),
    "unet": UNet,
    "vit": vit,
}
# network, K, objective, optimizer, precision, module that is slow
CASES = [
    ("chain", 2, "infopro-softmax", "sgd", torch.float32, None),
    ("chain", 3, "infopro-contrast", "adamw", torch.float32, 1),
    ("chain", 4, "infopro-softmax", "sgd", torch.float32, 0),
    ("chain", 4, "dgl", "sgd", torch.bfloat16, 3),
    ("unet", 3, "infopro-softmax", "sgd", torch.float32, 2),
    ("vit", 4, "greedy", "adamw", torch.float32, None),
]


def pixels(size, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (size,), generator=generator)
    images = torch.randint(100, (size, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    images[torch.arange(size), labels] += 30  # the class is the brightest colour
    return ImageTensors(images, labels)


def colours():
    """37 images in batches of 16: the last batch is smaller."""
    return ImageData(
        name="colours",
        train=pixels(37, 0),
        test=pixels(20, 1),
        num_classes=CLASSES,
        class_names=("red", "green", "blue"),
        mean=(0.3, 0.3, 0.3),
        std=(0.2, 0.2, 0.2),
        image_shape=(3, SIDE, SIDE),
        augmentation=Augmentation(crop_padding=1, flip=True),
    )


def build(network, num_modules, objective, seed=0):
    torch.manual_seed(seed)
    model = NETWORKS[network]().to(memory_format=torch.channels_last)
    return infopro.localize(
        model,
        example(),
        num_modules=num_modules,
        balance="depth",
        objective=from_name(objective),
        task=infopro.tasks.Classification(num_classes=CLASSES, mean=(0.3,) * 3, std=(0.2,) * 3),
    )


def example():
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return images.contiguous(memory_format=torch.channels_last)


def run(local, parameters, name, precision, **options):
    optimizer = make_optimizer(name, parameters, learning_rate=0.1, weight_decay=1e-4)
    schedule = make_schedule("cosine", base=0.05, epochs=EPOCHS, warmup_epochs=1)
    records = train(
        local,
        colours(),
        optimizer=optimizer,
        schedule=schedule,
        epochs=EPOCHS,
        batch_size=16,
        seed=3,
        device=CPU,
        precision=precision,
        **options,
    )
    return records, everything(local, optimizer)


def everything(local, optimizer):
    """Weights, buffers and optimizer state by name; what other processes own is left out."""
    found = {name: t.clone() for name, t in local.state_dict().items() if not t.is_meta}
    for name, parameter in local.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            found[f"{name}/{key}"] = torch.as_tensor(value).clone()
    return found


def numbers(record):
    clocks = ("seconds", "images_per_second")
    return {name: value for name, value in asdict(record).items() if name not in clocks}


def train_in_a_pipeline(network, num_modules, objective, name, precision, slow):
    with joined(num_stages=num_modules, device=CPU, timeout_seconds=60) as processes:
        local = build(network, num_modules, objective)
        engine = Pipeline(local, processes, example=example(), precision=precision)
        if slow == processes.stage:
            local.stages[slow].part.register_forward_hook(lambda *_: time.sleep(0.05))
        records, found = run(local, engine.parameters(), name, precision, engine=engine)
        engine.finish()
        held = sum(t.nbytes for t in [*local.parameters(), *local.buffers()] if not t.is_meta)
        return [numbers(record) for record in records], found, engine.names(), held, engine.bytes_sent


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)).replace("torch.", ""))
def test_a_pipeline_computes_what_one_process_computes(crew, case):
    network, num_modules, objective, name, precision, _ = case
    alone = build(network, num_modules, objective)
    records, expected = run(alone, alone.parameters(), name, precision)
    results = crew(num_modules, train_in_a_pipeline, *case)
    together = {}
    for _, found, names, _, _ in results:
        assert not together.keys() & found.keys(), "two processes hold the same tensor"
        assert {key.partition("/")[0] for key in found} <= names
        together |= found
    assert together.keys() == expected.keys()
    different = [key for key in expected if not torch.equal(expected[key], together[key])]
    assert different == []
    *others, last = [result[0] for result in results]
    assert last == [numbers(record) for record in records]
    assert all(found == [] for found in others)


def test_weights_did_change():
    """Else equality above would say nothing."""
    before, after = build("chain", 3, "infopro-softmax"), build("chain", 3, "infopro-softmax")
    run(after, after.parameters(), "sgd", torch.float32)
    same = [n for n, p in after.named_parameters() if torch.equal(p, dict(before.named_parameters())[n])]
    assert same == []


def test_each_process_holds_its_own_module_only(crew):
    case = CASES[2]
    alone = build(*case[:3])
    sizes = [result[3] for result in crew(4, train_in_a_pipeline, *case)]
    whole = sum(t.nbytes for t in [*alone.parameters(), *alone.buffers()])
    task = sum(b.nbytes for b in alone.task.buffers())
    assert sum(sizes) - 4 * task == whole - task
    assert max(sizes) < 0.6 * whole


def test_nothing_flows_back_and_the_last_module_sends_nothing(crew):
    *sent, last = [result[4] for result in crew(4, train_in_a_pipeline, *CASES[3])]
    assert last == 0
    assert min(sent) > 0


def test_images_travel_only_as_far_as_they_are_read(crew):
    """DGL reads none: of the network, features and labels are all that is sent."""
    with_images = [result[4] for result in crew(4, train_in_a_pipeline, *CASES[2])]
    without = [result[4] for result in crew(4, train_in_a_pipeline, "chain", 4, "dgl", *CASES[2][3:])]
    images = EPOCHS * (37 + 20) * 3 * SIDE * SIDE * 4
    assert with_images[0] - without[0] == pytest.approx(images, rel=0.05)
    # the last module has no decoder; the names of the losses travel, too
    assert with_images[2] == pytest.approx(without[2], abs=1000)


def refuse(num_stages, network, num_modules):
    with joined(num_stages=num_stages, device=CPU, timeout_seconds=20) as processes:
        Pipeline(build(network, num_modules, "greedy"), processes, example=example())


def test_a_wrong_number_of_processes_is_explained_once(crew):
    first, second = crew(2, refuse, 3, "chain", 3, failures=True)
    told = sorted([type(first).__name__, type(second).__name__])
    assert told == ["AlreadyTold", "BadConfiguration"]
    assert "got 2 processes for 3 modules; allowed: 3 or a multiple of it" in str(first)


def test_modules_that_share_a_parameter_are_refused():
    model = nn.Sequential(block(3, 6), block(6, 6), block(6, 6), *tail(6))
    model[2][0].weight = model[1][0].weight
    local = infopro.localize(
        model,
        example(),
        cuts=["1"],
        objective=from_name("greedy"),
        task=infopro.tasks.Classification(num_classes=CLASSES),
    )
    with pytest.raises(NotYetSupported, match=r"share a parameter: got .*weight in modules 1 and 2"):
        check_separable(local)


def test_a_module_without_parameters_is_refused():
    local = build("chain", 2, "greedy")
    for parameter in local.stages[0].parameters():
        parameter.requires_grad_(False)
    with pytest.raises(BadConfiguration, match="no parameters to train: got module 1"):
        check_separable(local)


def test_every_tensor_has_one_owner():
    for network in NETWORKS:
        local = build(network, 3, "infopro-softmax")
        names = [owned_names(local, [index]) for index in range(3)]
        assert set().union(*names) >= set(local.state_dict())
        assert sum(len(found & set(local.state_dict())) for found in names) == len(local.state_dict())
