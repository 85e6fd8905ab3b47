from pathlib import Path

import pytest
import torch

from infopro.data import (
    VOID,
    Augmentation,
    ImageData,
    ImageTensors,
    JointAugmentation,
    MaskFiles,
    MaskTensors,
)
from infopro.errors import BadConfiguration, BadInput

BLACK = (0, 0, 0)


def tensors(values, size=2):
    masks = torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1).expand(-1, size, size).contiguous()
    return MaskTensors(torch.zeros(len(values), 3, size, size, dtype=torch.uint8), masks)


def files(classes, **changes):
    return MaskFiles(Path("set"), ("a.jpg", "b.jpg"), ("a.png", "b.png"), classes, **changes)


def data(**changes):
    fields = {
        "name": "tiny", "train": tensors([0, 1]), "test": tensors([1, VOID]), "num_classes": 2,
        "class_names": ("a", "b"), "mean": (0.5,) * 3, "std": (0.5,) * 3, "image_shape": (3, 2, 2),
        "augmentation": JointAugmentation(), "colours": (BLACK, BLACK),
    }  # fmt: skip
    return ImageData(**{**fields, **changes})


def labelled():
    return ImageTensors(torch.zeros(2, 3, 2, 2, dtype=torch.uint8), torch.arange(2))


def test_a_data_set_says_whether_it_has_masks():
    assert data().has_masks and data(train=files({0: 0}), test=files({0: VOID})).has_masks
    assert not data(train=labelled(), test=labelled(), augmentation=Augmentation(), colours=()).has_masks


@pytest.mark.parametrize("value", [2, 254])
def test_mask_values_outside_the_classes_are_refused_with_the_range(value):
    with pytest.raises(BadInput, match=rf"test masks of tiny.*got {value}.*0 to 1, or 255"):
        data(test=tensors([0, value]))
    with pytest.raises(BadInput, match=rf"train masks of tiny.*got {value}"):
        data(train=files({7: 0, 8: value, 9: VOID}))


def test_masks_of_void_alone_are_allowed():
    assert len(data(train=tensors([VOID, VOID])).train) == 2


def test_both_parts_have_masks_or_none():
    with pytest.raises(BadInput, match="only one part of tiny has masks"):
        data(test=labelled())
    with pytest.raises(BadInput, match="only one part of tiny has masks"):
        data(train=labelled(), augmentation=Augmentation())


def test_colours_classes_and_augmentation_must_fit():
    with pytest.raises(BadInput, match="1 colours, 2 classes"):
        data(colours=(BLACK,))
    assert data(colours=()).colours == ()
    with pytest.raises(BadInput, match="leaves masks behind"):
        data(augmentation=Augmentation(flip=True))
    assert data(augmentation=Augmentation()).has_masks  # it does nothing
    with pytest.raises(BadInput, match="1 to 255"):
        data(num_classes=256, class_names=("x",) * 256, colours=())


def test_images_masks_and_sources_stay_together():
    images = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1)
    part = MaskTensors(images, images[:, 0] + 10, torch.arange(3) + 20)
    taken = part.take(torch.tensor([2, 0])).to("cpu")
    assert len(taken) == 2 and taken.common_size == (1, 1)
    assert taken.images.flatten().tolist() == [2, 0]
    assert taken.masks.flatten().tolist() == [12, 10]
    assert taken.sources.tolist() == [22, 20]


def test_files_stay_together_and_know_their_size():
    part = files({0: 0}, own_size=(4, 6))
    taken = part.take(torch.tensor([1])).to("cpu")
    assert (taken.image_files, taken.mask_files, len(taken)) == (("b.jpg",), ("b.png",), 1)
    assert taken.common_size == (4, 6)
    assert files({}, own_size=(4, 6), size=(2, 3)).common_size == (2, 3)
    assert files({}).common_size is None
    with pytest.raises(BadInput, match="2 and 1"):
        MaskFiles(Path("set"), ("a.jpg", "b.jpg"), ("a.png",), {})


def test_masks_that_do_not_fit_their_images_are_refused():
    images, masks = torch.zeros(2, 3, 4, 5, dtype=torch.uint8), torch.zeros(2, 4, 5, dtype=torch.uint8)
    with pytest.raises(BadInput, match=r"\[2, 5, 4\]; allowed: uint8 \[2, 4, 5\]"):
        MaskTensors(images, masks.transpose(1, 2))
    with pytest.raises(BadInput, match="int64"):
        MaskTensors(images, masks.long())
    with pytest.raises(BadInput, match="float32"):
        MaskTensors(images.float(), masks)
    with pytest.raises(BadInput, match=r"sources.*1 and 2"):
        MaskTensors(images, masks, torch.zeros(1))


def test_every_problem_of_an_augmentation_is_named():
    with pytest.raises(BadConfiguration, match=r"crop \(0, 4\).*scale \(2, 1\)"):
        JointAugmentation(crop=(0, 4), scale=(2, 1))
    for scale in ((0.0, 1.0), (1.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(BadConfiguration, match="scale"):
            JointAugmentation(scale=scale)


def test_an_augmentation_knows_whether_it_does_anything():
    assert not JointAugmentation().varies
    for changes in ({"crop": (2, 2)}, {"scale": (1, 2)}, {"flip": True}, {"colour": True}):
        assert JointAugmentation(**changes).varies
