import pytest
import torch

from infopro.data import JointAugmentation, batches, crop, digits_on_photos, digits_on_photos_masks, resize
from infopro.errors import BadConfiguration


@pytest.fixture(scope="module")
def digits():
    return digits_on_photos_masks(train_size=6, test_size=4)


def test_a_crop_changes_training_images_and_the_shape_alone(digits):
    data = crop(digits, size=(20, 24), scale=(0.5, 2.0))
    assert data.image_shape == (3, 20, 24)
    assert data.augmentation == JointAugmentation(crop=(20, 24), scale=(0.5, 2.0))
    assert data.train is digits.train and data.test is digits.test
    options = {
        "batch_size": 6, "shuffle": True, "seed": 0, "epoch": 0, "device": "cpu",
        "mean": data.mean, "std": data.std, "augmentation": data.augmentation,
    }  # fmt: skip
    ((images, masks),) = batches(data.train, **options)
    assert images.shape == (6, 3, 20, 24) and masks.shape == (6, 20, 24) and masks.dtype == torch.int64


def test_what_is_not_given_stays(digits):
    assert crop(digits, size=(20, 24)).augmentation.scale == digits.augmentation.scale
    scaled = crop(digits, scale=[1, 2])  # as a configuration file has it
    assert scaled.augmentation == JointAugmentation(scale=(1, 2)) and scaled.image_shape == (3, 32, 32)
    again = crop(crop(digits, size=[20, 24]), scale=(1, 2))
    assert again.augmentation == JointAugmentation(crop=(20, 24), scale=(1, 2))


def test_another_image_size_leaves_the_crop(digits):
    data = resize(crop(digits, size=(20, 24)), image_size=(40, 64))
    assert data.image_shape == (3, 20, 24) and data.train.masks.shape == (6, 40, 64)


def test_sets_without_masks_and_impossible_crops_are_refused(digits):
    with pytest.raises(BadConfiguration, match="data sets with masks: got digits-on-photos"):
        crop(digits_on_photos(train_size=2, test_size=2), size=(20, 24))
    with pytest.raises(BadConfiguration, match="crop"):
        crop(digits, size=(0, 24))
    with pytest.raises(BadConfiguration, match="scale"):
        crop(digits, scale=(2.0, 1.0))
