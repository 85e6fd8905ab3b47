import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infopro.data import (
    ImageData,
    ImageTensors,
    JointAugmentation,
    MaskTensors,
    digits_on_photos,
    hold_out,
    limit,
    resize,
)
from infopro.errors import BadConfiguration


def numbered(labels):
    labels = torch.tensor(labels)
    images = torch.arange(len(labels)).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return ImageTensors(images, labels)


def data(train, test=(0, 1, 2)):
    return ImageData(
        "tiny", numbered(train), numbered(list(test)), 3, ("a", "b", "c"), (0.5,), (0.5,), (1, 2, 2)
    )


def numbers(part):
    return part.images[:, 0, 0, 0].tolist()


@settings(deadline=None)
@given(
    labels=st.lists(st.integers(0, 2), min_size=2, max_size=60), number=st.integers(1, 60), seed=st.integers()
)
def test_a_limit_is_balanced_ordered_and_nested(labels, number, seed):
    whole = data(labels)
    part = limit(whole, train=number, seed=seed).train
    assert len(part) == min(number, len(labels))
    assert numbers(part) == sorted(numbers(part))
    assert set(numbers(limit(whole, train=max(1, number - 1), seed=seed).train)) <= set(numbers(part))
    have, got = (torch.bincount(each.labels, minlength=3) for each in (whole.train, part))
    short = got < have  # a class with images left has at most one less than the largest
    assert not short.any() or got[short].min() >= got.max() - 1


def test_limits_are_seeded_and_leave_the_other_part_alone():
    whole = data([0, 1, 2] * 20)
    assert numbers(limit(whole, train=9, seed=1).train) == numbers(limit(whole, train=9, seed=1).train)
    assert numbers(limit(whole, train=9, seed=1).train) != numbers(limit(whole, train=9, seed=2).train)
    assert limit(whole, train=9).test is whole.test
    assert limit(whole, test=100).train is whole.train
    with pytest.raises(BadConfiguration, match="0; allowed: 1 or more"):
        limit(whole, test=0)


def test_held_out_images_are_a_share_of_every_class_and_of_nothing_else():
    whole = data([0] * 40 + [1] * 10 + [2] * 2)
    chosen = hold_out(whole, fraction=0.25, seed=1)
    assert chosen.test.labels.bincount().tolist() == [10, 2, 1]  # 2.5 rounds to even; at least one
    assert sorted(numbers(chosen.train) + numbers(chosen.test)) == list(range(52))
    assert numbers(chosen.test) != numbers(hold_out(whole, fraction=0.25, seed=2).test)


def test_a_class_of_one_image_stays_in_training():
    chosen = hold_out(data([0, 0, 1]), fraction=0.9)
    assert sorted(chosen.train.labels.tolist()) == [0, 1] and chosen.test.labels.tolist() == [0]


def test_images_of_one_source_digit_are_held_out_together():
    whole = digits_on_photos(train_size=2000, test_size=10)
    chosen = hold_out(whole, fraction=0.2)
    kept, held = (set(part.nuisance["source"].tolist()) for part in (chosen.train, chosen.test))
    assert not kept & held and len(kept | held) == 1347
    assert 0.18 < len(chosen.test) / 2000 < 0.22
    assert not set(whole.test.nuisance["source"].tolist()) & (kept | held)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_fractions_outside_the_range_are_refused(fraction):
    with pytest.raises(BadConfiguration, match="between 0 and 1"):
        hold_out(data([0, 1, 2]), fraction=fraction)


def test_resizing_keeps_labels_scales_the_padding_and_is_off_at_the_own_size():
    whole = digits_on_photos(train_size=8, test_size=4)
    larger = resize(whole, image_size=64)
    assert larger.image_shape == (3, 64, 64) and larger.augmentation.crop_padding == 4
    assert larger.train.images.shape == (8, 3, 64, 64) and larger.train.images.dtype == torch.uint8
    assert torch.equal(larger.train.masks[:, ::2, ::2], whole.train.masks)
    assert torch.equal(larger.train.labels, whole.train.labels)
    back = resize(larger, image_size=32).train.images.int() - whole.train.images.int()
    assert back.abs().float().mean() < 8
    assert resize(whole, image_size=32) is whole
    with pytest.raises(BadConfiguration, match="0"):
        resize(whole, image_size=0)


def with_masks(number, sources=None):
    images = torch.arange(number).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 6, 9).contiguous()
    part = MaskTensors(images, images[:, 0] % 3, sources)
    shape = ((0.5,) * 3, (0.5,) * 3, (3, 6, 9))
    return ImageData("tiny", part, part, 3, ("a", "b", "c"), *shape, JointAugmentation())


def test_images_with_masks_are_limited_and_held_out_at_random():
    whole = with_masks(40)
    few = limit(whole, train=9, seed=1).train
    assert len(few) == 9 and numbers(few) == sorted(numbers(few)) != list(range(9))
    assert numbers(few) == numbers(limit(whole, train=9, seed=1).train)
    assert numbers(few) != numbers(limit(whole, train=9, seed=2).train)
    assert set(numbers(limit(whole, train=5, seed=1).train)) <= set(numbers(few))
    assert torch.equal(few.masks[:, 0, 0], few.images[:, 0, 0, 0] % 3)
    chosen = hold_out(whole, fraction=0.25, seed=1)
    assert len(chosen.test) == 10
    assert sorted(numbers(chosen.train) + numbers(chosen.test)) == list(range(40))


def test_images_with_masks_of_one_source_are_held_out_together():
    chosen = hold_out(with_masks(40, torch.arange(40) // 4), fraction=0.3)
    kept, held = (set(part.sources.tolist()) for part in (chosen.train, chosen.test))
    assert len(kept) == 7 and len(held) == 3 and not kept & held


def test_masks_are_resized_by_the_nearest_pixel_and_stay_with_their_sources():
    whole = with_masks(4, torch.arange(4))
    smaller = resize(whole, image_size=(2, 3))
    assert smaller.image_shape == (3, 2, 3) and smaller.train.images.shape == (4, 3, 2, 3)
    assert torch.equal(smaller.train.masks, whole.train.masks[:, 1::3, 1::3])
    assert smaller.train.sources is whole.train.sources
    assert smaller.augmentation == whole.augmentation
