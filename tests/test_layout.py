import pytest
import timm
import torch

import infopro
from infopro.errors import BadInput, BadSplit
from infopro.models import cifar_resnet
from infopro.objectives import Greedy, InfoPro

IMAGES = torch.rand(8, 3, 32, 32)


def test_a_split_table_holds_what_a_real_step_does():
    model = cifar_resnet(20, 10)
    task = infopro.tasks.Classification(num_classes=10)
    table = infopro.split(model, IMAGES, num_modules=4, objective=InfoPro(), task=task)
    local = infopro.localize(model, IMAGES, cuts=table.cuts, objective=InfoPro(), task=task)
    measured = infopro.memory.measure(local, IMAGES, torch.arange(8))
    assert tuple(row.saved_bytes for row in table.rows) == measured.saved.per_module
    assert table.split == local.split
    for row, stage in zip(table.rows, local.stages, strict=True):
        assert row.parameters == sum(p.numel() for p in stage.part.parameters())
        assert row.head_parameters == sum(p.numel() for p in stage.heads.parameters())
    assert sum(row.parameters for row in table.rows) == sum(p.numel() for p in model.parameters())
    assert [row.boundary_bytes for row in table.rows] == [
        *(8 * 4 * torch.Size(shape).numel() for shape in local.split.boundary_shapes),
        0,
    ]
    assert table.largest_share == max(measured.saved.per_module) / sum(measured.saved.per_module)


def test_operations_of_all_modules_are_those_of_the_network():
    """Greedy heads are tiny: the modules add up to end to end, less the gradients not passed back."""
    model = cifar_resnet(20, 10)
    rows = infopro.split(model, IMAGES, num_modules=4).rows
    whole = infopro.plan(model, IMAGES, num_modules=[]).end_to_end.step.flops
    assert sum(row.flops for row in rows) == pytest.approx(whole, rel=0.1)


def test_skips_are_counted_and_shown():
    model = timm.create_model("coat_tiny", img_size=64)
    table = infopro.split(model, torch.rand(2, 3, 64, 64), num_modules=4)
    assert sum(row.skips for row in table.rows) > 0
    text = str(table)
    assert text == repr(table)
    for word in ("module", "parameters", "operations", "saved", "boundary", "skips", "ideal 25.0%"):
        assert word in text
    assert all(f"\n {row.index + 1} " in text for row in table.rows)


def test_cuts_by_name_and_other_balances():
    model = cifar_resnet(20, 10)
    assert infopro.split(model, IMAGES, cuts=["layer2"]).rows[0].blocks[-1] == "layer2"
    assert infopro.split(model, IMAGES, num_modules=3, balance="depth").cuts == ("layer1.2", "layer2.2")
    assert infopro.split(model, IMAGES, num_modules=1, objective=Greedy()).cuts == ()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, BadSplit, "give either cuts or num_modules"),
        ({"num_modules": 0}, BadSplit, "got num_modules=0; allowed: 1 to 10"),
        ({"num_modules": 99}, BadSplit, "got num_modules=99; allowed: 1 to 10"),
        ({"cuts": ["layer9"]}, BadSplit, "'layer9' is not a block"),
    ],
)
def test_wrong_wishes_are_explained(options, error, message):
    with pytest.raises(error, match=message):
        infopro.split(cifar_resnet(20, 10), IMAGES, **options)


def test_wrong_inputs_are_explained():
    with pytest.raises(BadInput, match=r"cannot take the example input: got \[8, 1, 32, 32\] float32"):
        infopro.split(cifar_resnet(20, 10), IMAGES[:, :1], num_modules=2)
    with pytest.raises(BadInput, match=r"got \[8, 3, 32, 32\] int64 \(.*dtype"):
        infopro.split(cifar_resnet(20, 10), IMAGES.long(), num_modules=2)
    spread = cifar_resnet(20, 10)
    spread.layer2.to("meta")
    with pytest.raises(BadInput, match=r"over several devices \(conv1.weight on cpu, layer2.*on meta\)"):
        infopro.split(spread, IMAGES, num_modules=2)
    with pytest.raises(BadInput, match=r"the example input is on \['meta'\], the network on \['cpu'\]"):
        infopro.split(cifar_resnet(20, 10), IMAGES.to("meta"), num_modules=2)
