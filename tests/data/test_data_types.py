import pytest
import torch

from infopro.data import Augmentation, ImageData, ImageTensors
from infopro.errors import BadConfiguration, BadInput


def tensors(labels):
    labels = torch.tensor(labels)
    return ImageTensors(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), labels)


def data(**changes):
    fields = {
        "name": "tiny", "train": tensors([0, 1]), "test": tensors([1]), "num_classes": 2,
        "class_names": ("a", "b"), "mean": (0.5,), "std": (0.5,), "image_shape": (1, 2, 2),
    }  # fmt: skip
    return ImageData(**{**fields, **changes})


@pytest.mark.parametrize("labels", [[0, 2], [-1, 0]])
def test_labels_outside_the_classes_are_refused_with_the_range(labels):
    with pytest.raises(BadInput, match=r"test labels of tiny.*0 to 1"):
        data(test=tensors(labels))
    assert len(data(test=tensors([0, 1])).test) == 2


def test_labels_must_be_whole_numbers():
    with pytest.raises(BadInput, match="float32"):
        data(train=tensors([0.0, 1.0]))


@pytest.mark.parametrize("changes", [{"class_names": ("a",)}, {"mean": (0.5, 0.5)}])
def test_names_and_normalisation_must_fit(changes):
    with pytest.raises(BadInput, match="tiny"):
        data(**changes)


def test_a_part_keeps_images_labels_masks_and_nuisance_together():
    images = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1)
    part = ImageTensors(images, torch.arange(3), images[:, 0] + 10, {"source": torch.arange(3) + 20})
    taken = part.take(torch.tensor([2, 0])).to("cpu")
    assert len(taken) == 2
    assert taken.images.flatten().tolist() == taken.labels.tolist() == [2, 0]
    assert taken.masks.flatten().tolist() == [12, 10]
    assert taken.nuisance["source"].tolist() == [22, 20]


def test_a_part_of_uneven_or_wrong_tensors_is_refused():
    images = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(BadInput, match=r"labels.*3 and 2"):
        ImageTensors(images, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(BadInput, match=r"source.*1 and 2"):
        ImageTensors(images, torch.zeros(2, dtype=torch.int64), None, {"source": torch.zeros(1)})
    with pytest.raises(BadInput, match="float32"):
        ImageTensors(images.float(), torch.zeros(2, dtype=torch.int64))


def test_augmentation_refuses_what_it_cannot_do():
    with pytest.raises(BadConfiguration, match="-1"):
        Augmentation(crop_padding=-1)
    with pytest.raises(BadConfiguration, match="reflect, zero"):
        Augmentation(padding_mode="wrap")
