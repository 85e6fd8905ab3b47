import hashlib

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from infopro.data import digits_on_photos, render_digits
from infopro.errors import BadConfiguration, BadInput


@pytest.fixture(scope="module")
def small():
    return digits_on_photos(train_size=1500, test_size=500, seed=3)


def sources(part):
    return set(part.nuisance["source"].tolist())


def nuisance(**entries):
    values = {"source": 0, "photo": 0, "crop_scale": 1, "crop_top": 0, "crop_left": 0}
    values |= {"digit_top": 0, "digit_left": 0, "digit_size": 20} | entries
    return {name: torch.tensor([value]) for name, value in values.items()}


def test_shapes_classes_and_preparation(small):
    assert small.train.images.shape == (1500, 3, 32, 32) and small.train.images.dtype == torch.uint8
    assert small.train.masks.shape == (1500, 32, 32)
    assert (small.num_classes, small.image_shape, small.mean, small.std) == (
        10,
        (3, 32, 32),
        (0.5,) * 3,
        (0.5,) * 3,
    )
    assert small.augmentation.crop_padding == 2 and not small.augmentation.flip


def test_train_held_out_and_test_digits_are_disjoint_whatever_the_seeds():
    # sizes above the number of source digits: every one of them is used
    final = [digits_on_photos(train_size=1500, test_size=500, seed=seed) for seed in (0, 1)]
    chosen = [digits_on_photos(train_size=1500, test_size=500, seed=seed, holdout=True) for seed in (2, 3)]
    tested = set.union(*(sources(data.test) for data in final))
    trained = set.union(*(sources(data.train) for data in final))
    kept = set.union(*(sources(data.train) for data in chosen))
    held = set.union(*(sources(data.test) for data in chosen))
    assert not tested & (trained | kept | held)
    assert not kept & held
    assert (len(tested), len(trained), len(kept), len(held)) == (450, 1347, 1077, 270)
    assert kept | held == trained


def test_source_digits_are_used_equally_often_and_classes_are_balanced(small):
    uses = small.train.nuisance["source"].bincount()
    assert set(uses[uses > 0].tolist()) == {1, 2}
    counts = small.train.labels.bincount(minlength=10)
    assert counts.min() > 130 and counts.max() < 170


def test_labels_are_those_of_the_source_digits(small):
    truth = torch.as_tensor(load_digits().target)
    for part in (small.train, small.test):
        assert torch.equal(part.labels, truth[part.nuisance["source"]])


def test_rendering_repeats_for_the_same_seed_only(small):
    again = digits_on_photos(train_size=1500, test_size=500, seed=3)
    other = digits_on_photos(train_size=1500, test_size=500, seed=4)
    assert torch.equal(again.train.images, small.train.images)
    assert torch.equal(again.test.masks, small.test.masks)
    assert not torch.equal(other.train.images, small.train.images)
    assert not torch.equal(other.test.images, small.test.images)


def test_the_nuisance_determines_images_and_masks(small):
    images, masks = render_digits(small.test.nuisance)
    assert torch.equal(images, small.test.images)
    assert torch.equal(masks, small.test.masks)


def test_rendering_in_chunks_equals_rendering_at_once(small, monkeypatch):
    monkeypatch.setitem(render_digits.__globals__, "CHUNK", 64)
    assert torch.equal(render_digits(small.test.nuisance)[0], small.test.images)


def test_masks_are_the_same_on_every_machine():
    data = digits_on_photos(train_size=64, test_size=64, seed=0)
    digest = hashlib.sha256(
        data.train.masks.numpy().tobytes() + data.test.masks.numpy().tobytes()
    ).hexdigest()
    assert digest[:16] == "03cc27d816eb436e"


def test_images_are_the_distance_of_photo_and_enlarged_digit():
    """One digit on 16 crops: a single value per pixel explains them all, that of a bilinear resize."""
    china = torch.tensor(load_sample_images().images[0]).permute(2, 0, 1)
    tops, lefts = range(0, 320, 20), range(5, 485, 30)
    crops = torch.stack([china[:, t : t + 32, s : s + 32] for t, s in zip(tops, lefts, strict=True)]).int()
    placed = nuisance(source=5, digit_size=30, digit_top=1, digit_left=2)
    placed = {name: value.expand(16) for name, value in placed.items()}
    images, masks = render_digits(
        {**placed, "crop_top": torch.tensor(tops), "crop_left": torch.tensor(lefts)}
    )
    explains = [((crops - value).abs() == images).all(1).all(0) for value in range(256)]  # each [32, 32]
    assert (torch.stack(explains).sum(0) == 1).all()
    digit = torch.stack(explains).int().argmax(0).numpy()
    source = np.pad(load_digits().images[5], 1).astype(np.float32)
    resized = np.asarray(Image.fromarray(source).resize((30, 30), Image.Resampling.BILINEAR)) * 255 / 16
    assert np.abs(digit[1:31, 2:32] - resized).max() < 0.51
    assert digit.sum() == digit[1:31, 2:32].sum()
    assert all(np.array_equal(mask.numpy(), digit >= 128) for mask in masks)


def test_coarser_scales_are_means_over_the_photo():
    flower = load_sample_images().images[1].astype(np.float64)
    image, _ = render_digits(nuisance(photo=1, crop_scale=4, crop_top=2, crop_left=3, digit_top=12))
    means = flower[8 : 8 + 48, 12 : 12 + 128].reshape(12, 4, 32, 4, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(image[0, :, :12].numpy() - means).max() <= 0.5


def test_changing_one_nuisance_changes_only_what_it_names(small):
    moved = dict(small.test.nuisance)
    moved["crop_left"] = (moved["crop_left"] + 1).clamp(max=100)
    images, masks = render_digits(moved)
    assert torch.equal(masks, small.test.masks)
    assert not torch.equal(images, small.test.images)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"crop_scale": 3}, "crop scale.*3.*1, 2, 4"),
        ({"crop_top": 427 - 31}, "crop_top"),
        ({"crop_scale": 4, "crop_left": 129}, "crop_left"),
        ({"digit_top": 13}, "digit_top"),
        ({"digit_left": -1}, "digit_left"),
        ({"digit_size": 0}, "digit_size"),
        ({"source": 1797}, "source"),
        ({"photo": 2}, "photo"),
    ],
)
def test_impossible_placements_are_refused(entries, message):
    with pytest.raises(BadInput, match=message):
        render_digits(nuisance(**entries))


def test_missing_nuisance_and_empty_sets_are_refused():
    incomplete = nuisance()
    del incomplete["photo"]
    with pytest.raises(BadInput, match="no photo"):
        render_digits(incomplete)
    with pytest.raises(BadConfiguration, match="test_size 0"):
        digits_on_photos(test_size=0)
