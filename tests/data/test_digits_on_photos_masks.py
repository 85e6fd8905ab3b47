import torch

from infopro.data import JointAugmentation, digits_on_photos, digits_on_photos_masks, hold_out, load


def test_a_pixel_has_the_class_of_its_digit_or_the_background():
    data, digits = (make(train_size=50, test_size=20) for make in (digits_on_photos_masks, digits_on_photos))
    for part, theirs in ((data.train, digits.train), (data.test, digits.test)):
        assert torch.equal(part.images, theirs.images)
        for mask, ink, label in zip(part.masks, theirs.masks, theirs.labels, strict=True):
            assert (mask[ink == 1] == label).all() and (mask[ink == 0] == 10).all()
    assert data.class_names == (*"0123456789", "background") and len(set(data.colours)) == 11
    assert data.has_masks and data.image_shape == (3, 32, 32)


def test_digits_are_not_mirrored():
    augmentation = digits_on_photos_masks(train_size=10, test_size=10).augmentation
    assert augmentation == JointAugmentation(scale=(0.8, 1.25))


def test_held_out_images_share_no_source_digit_with_the_others():
    chosen = hold_out(digits_on_photos_masks(train_size=2000, test_size=10), fraction=0.2)
    kept, held = (set(part.sources.tolist()) for part in (chosen.train, chosen.test))
    assert not kept & held and len(kept | held) == 1347
    assert 0.18 < len(chosen.test) / 2000 < 0.22


def test_it_is_known_by_name_and_the_seed_reaches_the_rendering():
    first, other = (load("digits-on-photos-masks", seed=seed, image_size=16) for seed in (0, 1))
    assert (len(first.train), len(first.test), first.image_shape) == (5700, 2000, (3, 16, 16))
    assert not torch.equal(first.train.masks, other.train.masks)
