import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from infopro.analysis import ProbeSettings, entropy, input_information, input_scores, probe_blocks
from infopro.analysis import stored_features as rooms
from infopro.data import ImageData, ImageFiles, ImageTensors
from infopro.data._decode import central_crop
from infopro.errors import BadConfiguration, BadData, BadInput, UnknownName
from infopro.models.cifar_resnet import CifarResNet
from infopro.tasks import Classification

QUICK = ProbeSettings(
    epochs=2, steps=1, decoder_steps=1, batch_size=32, decoder_batch_size=16, nuisance_width=4, shown_images=3
)
MEAN, STD = (0.5, 0.4, 0.6), (0.25, 0.2, 0.3)
TASK = Classification(num_classes=2, mean=MEAN, std=STD)
BLOCKS = ("layer1.0", "layer2.0")


def part(number, seed):
    """Random colours; class 1 has a bright left half; the nuisance is whether the lower half is dark."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % 2
    dark = torch.randint(0, 2, (number,), generator=draw)
    images = torch.randint(60, 130, (number, 3, 1, 1), generator=draw).expand(-1, -1, 8, 8).clone()
    images += torch.randint(0, 20, images.shape, generator=draw)
    images[labels == 1, :, :, :4] += 100
    images[dark == 1, :, 4:] //= 3
    return ImageTensors(
        images.to(torch.uint8), labels, None, {"dark": dark, "source": torch.arange(number) + seed}
    )


def data(train=None, test=None):
    return ImageData(
        name="halves",
        train=part(80, 0) if train is None else train,
        test=part(40, 1000) if test is None else test,
        num_classes=2,
        class_names=("plain", "bright"),
        mean=MEAN,
        std=STD,
        image_shape=(3, 8, 8),
    )


def network():
    torch.manual_seed(0)
    model = CifarResNet(blocks=(1, 1, 1), widths=(4, 6, 8), num_classes=2, in_channels=3).train()
    model.layer1[0].bn1.eval()
    return model


def probe(model=None, images=None, settings=QUICK, **options):
    return probe_blocks(
        model or network(), TASK, images or data(), settings=settings, **{"blocks": BLOCKS, **options}
    )


class Known(nn.Module):
    """Blocks whose features are the image, nothing, the class, and the image again as a vector."""

    def __init__(self):
        super().__init__()
        self.same, self.zero, self.label, self.vector = (nn.Identity() for _ in range(4))
        self.head = nn.Linear(3, 2)

    def forward(self, images):
        same = self.same(images)
        self.zero(torch.zeros_like(images))
        halves = images[:, :, :, :4].mean((1, 2, 3)) - images[:, :, :, 4:].mean((1, 2, 3))
        self.label(torch.stack([halves > 0.5, halves <= 0.5], dim=1).float())
        self.vector(images.flatten(1))
        return self.head(same.mean((2, 3)))


def test_known_features_give_known_information():
    settings = replace(QUICK, steps=40, decoder_steps=120)
    found = probe(Known(), settings=settings, blocks=["same", "zero", "label", "vector"])
    image, same, zero, label, vector = found.blocks
    entropy_of_label = found.references.label_entropy
    assert entropy_of_label == pytest.approx(math.log(2))
    for block, capacity in ((image, "large"), (same, "large"), (label, "small"), (label, "large")):
        assert block.linear_error == (0.0,)
        assert block.task_information[capacity][0] == pytest.approx(entropy_of_label, abs=0.1)
    assert zero.linear_error == (50.0,) and zero.task_error["small"] == (50.0,)
    assert abs(zero.task_information["small"][0]) < 0.02 and abs(zero.task_information["large"][0]) < 0.02
    nats = [input_information(block, found.references)[0] for block in (same, zero, label, vector)]
    assert nats[0] > 4 and nats[0] > nats[2] > abs(nats[1]) and nats[3] > nats[2]
    assert abs(nats[1]) < 0.6  # of 192 numbers: 0.003 nats each
    assert input_scores(same)[0] == 1 - same.input_cross_entropy[0]
    entropy_of_dark = found.references.nuisance_entropy["dark"]
    assert entropy_of_dark == entropy(data().test.nuisance["dark"])
    assert same.nuisance_information["dark"][0] == pytest.approx(entropy_of_dark, abs=0.2)
    assert abs(zero.nuisance_information["dark"][0]) < 0.05 and label.nuisance_information["dark"][0] < 0.1


def test_results_name_blocks_shapes_settings_and_notes():
    found = probe(module_of={"layer1.0": 1, "layer2.0": 2}, settings=replace(QUICK, num_seeds=2))
    assert [(b.block, b.depth, b.module) for b in found.blocks] == [
        ("input", 0, 0),
        ("layer1.0", 1, 1),
        ("layer2.0", 2, 2),
    ]
    assert [b.feature_shape for b in found.blocks] == [(3, 8, 8), (4, 8, 8), (6, 4, 4)]
    assert found.references.pixels == 192
    assert found.blocks[0].input_cross_entropy == ()
    for block in found.blocks[1:]:
        assert len(block.input_cross_entropy) == 2 and len(block.linear_error) == 1
        assert {name: len(values) for name, values in block.task_information.items()} == {
            "small": 2,
            "large": 2,
        }
        assert list(block.nuisance_information) == ["dark"]
    assert found.notes == (
        "nuisance 'source' is left out: no value of the test images occurs among the training images",
    )
    assert found.settings["images_used"] == {"train": 80, "test": 40} and found.settings["num_seeds"] == 2


def test_shown_images_are_the_first_test_images_as_bytes():
    images = probe(estimates=["input"]).images
    first = data().test.images[:3].permute(0, 2, 3, 1).numpy()
    assert np.abs(images.originals.astype(int) - first).max() <= 1
    assert images.captions == ("plain", "bright", "plain") and images.blocks == BLOCKS
    assert images.decoded.shape == (2, 3, 8, 8, 3) and images.decoded.dtype == np.uint8


def trace(model):
    return (
        [module.training for module in model.modules()],
        [len(m._forward_hooks) for m in model.modules()],
        [(p.grad, p.requires_grad, p.is_contiguous()) for p in model.parameters()],
    )


def test_the_network_and_all_randomness_stay_as_they_were():
    model, images = network(), data()
    before, state = trace(model), {n: v.clone() for n, v in model.state_dict().items()}
    pixels, random_state = images.train.images.clone(), torch.get_rng_state()
    probe(model, images)
    assert trace(model) == before and torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(images.train.images, pixels)


def test_the_same_seed_gives_the_same_numbers_and_another_one_others():
    first = probe()
    assert probe().blocks == first.blocks and np.array_equal(probe().images.decoded, first.images.decoded)
    other = probe(settings=replace(QUICK, seed=1))
    assert [b.task_information for b in other.blocks] != [b.task_information for b in first.blocks]
    assert [b.input_cross_entropy for b in other.blocks] != [b.input_cross_entropy for b in first.blocks]


def test_a_block_alone_has_the_numbers_it_has_among_others():
    assert probe(blocks=["layer2.0"]).blocks[1] == replace(probe().blocks[2], depth=1)


def test_features_that_do_not_fit_are_streamed_with_the_same_result(tmp_path, monkeypatch):
    monkeypatch.setattr(rooms.tempfile, "tempdir", str(tmp_path))
    assert probe(settings=replace(QUICK, memory=1)).blocks == probe().blocks
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_asked_for_is_estimated():
    linear = probe(estimates=["linear"])
    assert linear.images is None and all(b.task_information == {} for b in linear.blocks)
    assert all(b.linear_error and b.input_cross_entropy == () for b in linear.blocks)
    nuisance = probe(estimates=["nuisance"]).blocks[1]
    assert nuisance.nuisance_information and nuisance.task_information == {} and nuisance.linear_error == ()
    assert nuisance.nuisance_information == probe().blocks[1].nuisance_information
    assert [b.block for b in probe(estimates=["linear"], blocks=None).blocks] == [
        "input", "relu", "layer1.0", "layer2.0", "layer3.0",
    ]  # fmt: skip


def test_images_in_files_are_read(tmp_path):
    parts = {"train": part(40, 0), "test": part(20, 1000)}
    for name, images in parts.items():
        for index, pixels in enumerate(images.images):
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / f"{name}{index}.png")
    files = {
        name: ImageFiles(tuple(tmp_path / f"{name}{i}.png" for i in range(len(images))), images.labels, 8)
        for name, images in parts.items()
    }
    found = probe(images=data(**files))
    assert found.blocks[1].nuisance_information == {} and found.notes == ()
    tensors = {
        name: ImageTensors(torch.stack([central_crop(path, 8) for path in part.paths]), part.labels)
        for name, part in files.items()
    }
    assert found.blocks == probe(images=data(**tensors)).blocks


def test_progress_is_told():
    steps = []
    probe(on_step=lambda what, done, total: steps.append((what, done, total)))
    assert steps[0] == ("mean image", 1, 5) and ("test images", 3, 3) in steps
    assert ("linear classifiers", 3, 3) in steps and ("auxiliary networks", 2, 2) in steps


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"train": part(18, 0)}, r"too few training images of halves for the probes: got 9 of class 'plain'"),
        (
            {"test": part(40, 9).take(torch.arange(0, 40, 2))},
            r"too few test images of halves for the probes: got 0 of class 'bright'; allowed: 1 or more",
        ),
    ],
)
def test_too_few_images_are_refused(images, message):
    with pytest.raises(BadData, match=message):
        probe(images=data(**images))


def test_unknown_names_and_numbers_are_refused():
    with pytest.raises(UnknownName, match=r"unknown estimate: got 'lineer'; did you mean linear"):
        probe(estimates=["lineer"])
    with pytest.raises(UnknownName, match="unknown block"):
        probe(blocks=["layer9"])
    with pytest.raises(BadConfiguration, match="num_seeds of the probes is too small"):
        ProbeSettings(num_seeds=0)
    with pytest.raises(BadConfiguration, match="hold_out"):
        ProbeSettings(hold_out=1.0)


def test_blocks_without_features_of_each_image_are_refused():
    model = network()
    model.unused = nn.Linear(2, 2)
    with pytest.raises(BadInput, match=r"'unused' returns no features of each image: got nothing"):
        probe(model, blocks=["unused"])


def test_a_diverged_network_and_a_wrong_task_are_refused():
    model = network()
    before = trace(model)
    model.layer2[0].conv1.weight.data[0] = math.nan
    with pytest.raises(BadInput, match=r"features of layer2\.0 are not finite"):
        probe(model)
    assert trace(model) == before
    with pytest.raises(BadInput, match="mean and std"):
        probe_blocks(
            network(), Classification(num_classes=2, mean=(5.0,)), data(), settings=QUICK, blocks=BLOCKS
        )
