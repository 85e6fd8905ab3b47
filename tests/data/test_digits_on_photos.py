import hashlib

import numpy as np
import pytest
import torch
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
    monkeypatch.setattr("infopro.data.digits_on_photos.CHUNK", 64)
    assert torch.equal(render_digits(small.test.nuisance)[0], small.test.images)


def test_masks_are_the_same_on_every_machine():
    data = digits_on_photos(train_size=64, test_size=64, seed=0)
    digest = hashlib.sha256(
        data.train.masks.numpy().tobytes() + data.test.masks.numpy().tobytes()
    ).hexdigest()
    assert digest[:16] == "MASK_DIGEST"


def test_blending_turns_the_photo_over_under_the_digit_and_leaves_it_elsewhere():
    china = torch.tensor(load_sample_images().images[0])
    placed = nuisance(crop_top=100, crop_left=200, digit_top=12, digit_left=10)
    image, mask = (each[0] for each in render_digits(placed))
    crop = china[100:132, 200:232].permute(2, 0, 1)
    assert torch.equal(image[:, :12], crop[:, :12])  # above the digit's frame
    assert torch.equal(image[:, :, :10], crop[:, :, :10])
    ink = (crop.int() + image.int()).where(
        image != crop, 0
    )  # = digit where the digit is darker than the photo
    assert mask.any() and not mask[:12].any() and not mask[:, :10].any()
    changed = (image != crop).any(0)
    assert changed[mask.bool()].float().mean() > 0.95
    assert ink.max() <= 510


def test_the_enlarged_digit_is_a_bilinear_resize_of_the_padded_source():
    from PIL import Image

    digit = np.pad(load_digits().images[5], 1).astype(np.float32)
    resized = np.asarray(Image.fromarray(digit).resize((30, 30), Image.Resampling.BILINEAR)) * 255 / 16
    _, mask = render_digits(nuisance(source=5, digit_size=30, digit_top=1, digit_left=2))
    inner = mask[0, 1:31, 2:32].numpy()
    clear = abs(resized - 127.5) > 0.6  # away from the threshold, where rounding decides
    assert np.array_equal(inner[clear], (resized > 127.5)[clear])
    assert mask.sum() == inner.sum()


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
