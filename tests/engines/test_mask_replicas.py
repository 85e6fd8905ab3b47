"""Masks by several processes: replicas of all modules, whose test images are larger, and a pipeline."""

from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch import nn

import infopro
from infopro.data import ImageData, JointAugmentation, MaskTensors
from infopro.engines import Pipeline, joined
from infopro.errors import NotYetSupported
from infopro.objectives import from_name
from infopro.training import make_optimizer, make_schedule, train

CLASSES, SIDE = 3, 12
CPU = torch.device("cpu")


def scenes(size, seed):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(CLASSES, (size, SIDE // 4, SIDE // 4), generator=generator)
    masks = masks.repeat_interleave(4, 1).repeat_interleave(4, 2)
    colours = 60 + 120 * torch.eye(CLASSES)[masks].permute(0, 3, 1, 2)
    noise = 40 * torch.rand(colours.shape, generator=generator)
    return MaskTensors((colours + noise).to(torch.uint8), masks.to(torch.uint8))


def data(crop):
    """Batches of 6 and a last one of 5, whose shares are unequal; the crops hold no void."""
    side = SIDE if crop is None else crop
    return ImageData(
        name="scenes",
        train=scenes(17, 0),
        test=scenes(7, 1),
        num_classes=CLASSES,
        class_names=("red", "green", "blue"),
        mean=(0.4,) * 3,
        std=(0.2,) * 3,
        image_shape=(3, side, side),
        augmentation=JointAugmentation(crop=None if crop is None else (crop, crop), flip=True),
    )


def build(objective, side):
    torch.manual_seed(0)
    blocks = [
        nn.Sequential(nn.Conv2d(i, o, 3, padding=1, stride=s), nn.BatchNorm2d(o), nn.ReLU())
        for i, o, s in ((3, 4, 1), (4, 6, 2), (6, 6, 1))
    ]
    model = nn.Sequential(*blocks, nn.Conv2d(6, CLASSES, 1))
    task = infopro.tasks.Segmentation(num_classes=CLASSES, mean=(0.4,) * 3, std=(0.2,) * 3)
    return infopro.localize(
        model.double().to(memory_format=torch.channels_last),
        example(side),
        objective=from_name(
            objective, task_head="1c1f"
        ),  # without dropout, which each replica draws for itself
        task=task.double(),
        num_modules=2,
        balance="depth",
    )


def example(side):
    return torch.rand(2, 3, side, side, dtype=torch.float64).contiguous(memory_format=torch.channels_last)


def run(local, scenery, engine=None):
    parameters = local.parameters() if engine is None else engine.parameters()
    return train(
        local,
        scenery,
        optimizer=make_optimizer("sgd", parameters, learning_rate=0.1, weight_decay=1e-4),
        schedule=make_schedule("poly", base=0.05, epochs=2, warmup_epochs=0),
        epochs=2,
        batch_size=6,
        seed=3,
        device=CPU,
        engine=engine,
    )


def in_double(found):
    for pixels, targets in found:
        yield pixels.double().contiguous(memory_format=torch.channels_last), targets


def train_together(objective, num_stages, crop, patience=60):
    patched = mock.patch("infopro.training.reading.channels_last", in_double)
    with patched, joined(num_stages=num_stages, device=CPU, timeout_seconds=patience) as processes:
        local = build(objective, crop or SIDE)
        engine = Pipeline(local, processes, example=example(crop or SIDE), synchronise=True)
        records = run(local, data(crop), engine)
        engine.finish()
        weights = {n: t.clone() for n, t in local.state_dict().items() if not t.is_meta}
        return [replace(r, seconds=0.0, images_per_second=0.0) for r in records], weights


def alone(monkeypatch, objective, crop):
    monkeypatch.setattr("infopro.training.reading.channels_last", in_double)
    local = build(objective, crop or SIDE)
    return run(local, data(crop)), local.state_dict()


def compare(expected, found):
    assert len(found) == len(expected) == 2
    for mine, theirs in zip(expected, found, strict=True):
        assert (mine.train_error, mine.test_error, mine.extra) == (
            theirs.train_error,
            theirs.test_error,
            theirs.extra,
        )
        for one, other in zip(mine.losses, theirs.losses, strict=True):
            assert one == pytest.approx(other, rel=1e-9)


@pytest.mark.parametrize("objective", ["greedy", "infopro-softmax"])
def test_replicas_that_train_on_crops_are_one_process(crew, monkeypatch, objective):
    records, expected = alone(monkeypatch, objective, 8)
    first, second = crew(2, train_together, objective, None, 8)
    compare(records, first[0])
    assert 0 < records[-1].extra["mean_iou"] < 100
    for name, value in expected.items():
        assert torch.equal(first[1][name], second[1][name]), f"{name} differs between the replicas"
        torch.testing.assert_close(first[1][name], value, rtol=1e-9, atol=1e-11, msg=name)


def test_a_pipeline_is_one_process_to_the_last_bit(crew, monkeypatch):
    records, expected = alone(monkeypatch, "infopro-softmax", None)
    results = crew(2, train_together, "infopro-softmax", 2, None)
    compare(records, results[1][0])
    found = results[0][1] | results[1][1]
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_a_pipeline_whose_test_images_are_larger_says_so(crew):
    first, _ = crew(2, train_together, "greedy", 2, 8, 5, failures=True)
    assert isinstance(first, NotYetSupported) and "a pipeline tests on images of the size" in str(first)
