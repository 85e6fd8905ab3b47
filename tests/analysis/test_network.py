import math

import pytest
import torch
from torch import nn

import infopro
from infopro.analysis import QUANTITIES, ComparisonSettings, ProbeSettings, analyze
from infopro.data import ImageData, ImageTensors
from infopro.errors import BadConfiguration, BadInput, UnknownName
from infopro.models.cifar_resnet import CifarResNet
from infopro.objectives import Greedy

TASK = infopro.tasks.Classification(num_classes=3, mean=(0.4,) * 3, std=(0.2,) * 3)
BLOCKS = ("relu", "layer1.0", "layer2.0", "layer3.0")
FEW = ComparisonSettings(images=24, batch_size=12, gradient_batches=2, gradient_batch_size=8)
QUICK = ProbeSettings(epochs=1, num_seeds=2, batch_size=16, decoder_batch_size=16)


def part(size, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (size, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return ImageTensors(images, torch.arange(size) % 3)


@pytest.fixture(scope="module")
def data():
    names = ("red", "green", "blue")
    return ImageData("noise", part(48, 0), part(30, 1), 3, names, (0.4,) * 3, (0.2,) * 3, (3, 8, 8))


def network(width=4, seed=0):
    torch.manual_seed(seed)
    return CifarResNet(blocks=(1, 1, 1), widths=(width,) * 3, num_classes=3, in_channels=3)


def localized():
    return infopro.localize(
        network(), torch.rand(2, 3, 8, 8), objective=Greedy(), task=TASK, cuts=["layer1.0", "layer2.0"]
    )


def test_everything_about_a_local_model_in_one_call(data):
    local, seen = localized(), []
    local.model.layer1.eval()
    before = {name: value.clone() for name, value in local.state_dict().items()}
    modes, stream = [m.training for m in local.modules()], torch.get_rng_state()
    found = analyze(
        local, TASK, data, probes=QUICK, comparison=FEW, name="mine", on_step=lambda *step: seen.append(step)
    )
    assert all(torch.equal(value, before[name]) for name, value in local.state_dict().items())
    assert [m.training for m in local.modules()] == modes
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(p.grad is None for p in local.parameters())
    assert [(b.block, b.depth, b.module) for b in found.blocks] == [
        ("input", 0, 0),
        *(("relu", 1, 1), ("layer1.0", 2, 1), ("layer2.0", 3, 2), ("layer3.0", 4, 3)),
    ]
    assert all(len(values) == 2 for values in found.blocks[1].task_information.values())
    assert found.images.blocks == BLOCKS and found.images.captions[:3] == ("red", "green", "blue")
    assert [entry.module for entry in found.gradients] == [1, 2, 3]
    assert [len(entry.local_norm) for entry in found.gradients] == [2, 2, 2]
    (own,) = found.similarities
    assert (own.row_run, own.column_run, own.rows, own.columns) == ("mine", "mine", BLOCKS, BLOCKS)
    assert found.settings["epochs"] == 1 and found.settings["comparison"]["batch_size"] == 12
    assert found.seconds > 0
    assert {("gradients", 2, 2), ("CKA", 2, 2)} <= set(seen)


def test_only_what_is_asked_for(data):
    found = analyze(localized(), TASK, data, only=["gradients"], comparison=FEW)
    assert found.blocks == () and found.similarities == () and found.images is None
    assert len(found.gradients) == 3
    assert found.references.pixels == 192 and math.isnan(found.references.constant_cross_entropy)
    assert found.references.label_entropy == pytest.approx(math.log(3))
    linear = analyze(network(), TASK, data, only=["linear"], blocks=["layer2.0"])
    assert [block.block for block in linear.blocks] == ["input", "layer2.0"]
    assert linear.gradients == () and linear.blocks[1].task_information == {}
    assert 0 <= linear.blocks[1].linear_error[0] <= 100


def test_a_plain_network_is_one_module_and_has_no_local_gradients(data):
    found = analyze(network(), TASK, data, only=["cka", "linear"], comparison=FEW)
    assert {block.module for block in found.blocks[1:]} == {1}
    assert found.similarities[0].rows == BLOCKS
    with pytest.raises(BadInput, match=r"module by module; pass what localize returned"):
        analyze(network(), TASK, data, only=["gradients"])


def test_other_networks_are_compared_on_the_same_images(data):
    narrow, wide = network(), network(width=8, seed=1)
    other = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
    )
    found = analyze(
        narrow,
        TASK,
        data,
        only=["cka"],
        blocks=BLOCKS[1:],
        name="narrow",
        others={"wide": wide, "other": other, "again": narrow},
        comparison=FEW,
    ).similarities
    assert [(s.row_run, s.column_run) for s in found] == [
        ("narrow", "narrow"),
        *(("narrow", "wide"), ("narrow", "other"), ("narrow", "again")),
    ]
    assert found[1].columns == BLOCKS[1:]  # blocks of the same names, where the other network has them
    assert found[2].columns == infopro.blocks(other, torch.rand(2, 3, 8, 8)).units
    assert found[3].values == found[0].values != found[1].values


def test_batches_mix_the_classes_of_data_that_come_class_by_class(data, monkeypatch):
    from dataclasses import replace

    seen = []

    def look(row_model, column_model, batches, **names):
        seen.append([sorted(set(labels.tolist())) for _, labels in batches])

    monkeypatch.setattr("infopro.analysis.network.compare_blocks", look)
    ordered = replace(data, test=data.test.take(data.test.labels.argsort()))
    other = {"other": network(seed=1)}
    analyze(network(), TASK, ordered, only=["cka"], blocks=["relu"], others=other, comparison=FEW)
    assert seen == [[[0, 1, 2]] * 2] * 2


class Two(nn.Module):
    def forward(self, left, right):
        return left + right


BAD = {
    "unknown quantity": (network, {"only": ["ckka"]}, UnknownName, r"unknown quantity: got 'ckka'; .*cka"),
    "unknown block": (
        network,
        {"blocks": ["layer1.0", "layer9"]},
        UnknownName,
        r"unknown block: got 'layer9'.*without names these are analysed: relu, layer1.0",
    ),
    "a map of classes": (lambda: nn.Conv2d(3, 3, 1), {}, BadInput, r"does not fit the task"),
    "another number of classes": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 7)), {}, BadInput, "7"),
    "two inputs": (Two, {}, BadInput, r"Two cannot take the example input"),
    "another image": (lambda: nn.Linear(9, 3), {}, BadInput, r"Linear cannot take the example input"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_analysed_is_said_in_one_line(case, data):
    make, options, kind, message = BAD[case]
    with pytest.raises(kind, match=message) as caught:
        analyze(make(), TASK, data, **options)
    assert "\n" not in str(caught.value)


def test_too_few_images(data):
    from dataclasses import replace

    few = replace(data, test=part(3, 0))
    with pytest.raises(BadInput, match=r"no batch is large enough for CKA"):
        analyze(network(), TASK, few, only=["cka"])
    with pytest.raises(infopro.errors.InfoProError):
        analyze(network(), TASK, replace(data, train=part(2, 0)), only=["task"])


@pytest.mark.parametrize("changes", [{"images": 3}, {"batch_size": 3}, {"gradient_batches": 0}])
def test_settings_out_of_range(changes):
    with pytest.raises(BadConfiguration, match=rf"{next(iter(changes))} is too small: got "):
        ComparisonSettings(**changes)


def test_quantities_are_those_of_the_command():
    assert QUANTITIES == ("linear", "input", "task", "nuisance", "cka", "gradients")
