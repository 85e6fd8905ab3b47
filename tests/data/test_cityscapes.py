"""On tiny images in the official layout; classes and colours against torchvision's table."""

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image

from infopro.data import VOID, MaskFiles, cityscapes, load
from infopro.errors import BadData


def write_pair(root, part, city, number, size=(4, 9)):
    name = f"{city}_{number:06}_000019"
    for folder in ("leftImg8bit", "gtFine"):
        (root / folder / part / city).mkdir(parents=True, exist_ok=True)
    image = root / "leftImg8bit" / part / city / f"{name}_leftImg8bit.png"
    mask = root / "gtFine" / part / city / f"{name}_gtFine_labelIds.png"
    Image.new("RGB", size[::-1], (number, 0, 0)).save(image)
    Image.fromarray((np.arange(size[0] * size[1]).reshape(size) % 34).astype(np.uint8)).save(mask)
    Image.new("RGB", size[::-1]).save(mask.with_name(f"{name}_gtFine_color.png"))
    return image, mask


@pytest.fixture
def folder(tmp_path):
    for number in (3, 1):
        write_pair(tmp_path, "train", "ulm", number)
    write_pair(tmp_path, "train", "aachen", 2)
    write_pair(tmp_path, "val", "munster", 4)
    return tmp_path


def test_ids_become_train_ids_as_in_torchvisions_table(folder):
    data = load("cityscapes", data_dir=folder)
    table = {
        c.id: c.train_id if 0 <= c.train_id < 19 else VOID for c in torchvision.datasets.Cityscapes.classes
    }
    expected = torch.tensor([table[value % 34] for value in range(36)], dtype=torch.uint8).view(4, 9)
    assert (data.train.masks == expected).all() and (data.test.masks == expected).all()
    classes = sorted(
        (c for c in torchvision.datasets.Cityscapes.classes if 0 <= c.train_id < 19), key=lambda c: c.train_id
    )
    assert data.class_names == tuple(c.name for c in classes)
    assert data.colours == tuple(tuple(c.color) for c in classes)
    assert data.image_shape == (3, 4, 9) and data.augmentation.flip


def test_images_come_in_the_order_of_their_names(folder):
    data = cityscapes(folder)
    assert data.train.images[:, 0, 0, 0].tolist() == [2, 1, 3]
    assert data.test.images[:, 0, 0, 0].tolist() == [4]


def test_a_folder_of_its_name_is_looked_into_and_large_sets_stay_files(folder, tmp_path_factory):
    outer = tmp_path_factory.mktemp("outer")
    (outer / "cityscapes").symlink_to(folder)
    data = cityscapes(outer, max_bytes=0)
    assert isinstance(data.train, MaskFiles) and data.train.own_size == (4, 9)


def test_byte_255_is_void_and_unknown_ids_are_named(folder):
    _, mask = write_pair(folder, "val", "munster", 5)
    Image.fromarray(np.full((4, 9), 255, dtype=np.uint8)).save(mask)
    assert (cityscapes(folder).test.masks[1] == VOID).all()
    Image.fromarray(np.full((4, 9), 34, dtype=np.uint8)).save(mask)
    with pytest.raises(BadData, match=r"munster_000005.*got 34; allowed: 0 to 33, 255"):
        cityscapes(folder)


def test_pairs_that_are_not_whole_are_named(folder):
    image, _ = write_pair(folder, "train", "ulm", 6)
    image.unlink()
    _, mask = write_pair(folder, "train", "bonn", 7)
    mask.unlink()
    said = r"1 without image: 'ulm/ulm_000006_000019'; 1 without mask: 'bonn/bonn_000007_000019'"
    with pytest.raises(BadData, match=said):
        cityscapes(folder)


def test_a_missing_set_names_folder_contents_and_remedy(folder, tmp_path):
    with pytest.raises(BadData) as caught:
        load("cityscapes", data_dir=tmp_path / "nowhere", download=True)
    for part in ("nowhere", "leftImg8bit/train", "gtFine/val", "--data-dir", "not downloaded"):
        assert part in str(caught.value)
    (folder / "leftImg8bit" / "train" / "note.txt").write_text("not a city")
    with pytest.raises(BadData, match="cannot read cityscapes"):
        cityscapes(folder)


def test_an_empty_part_is_named(folder):
    for kind in ("leftImg8bit", "gtFine"):
        for path in (folder / kind / "val" / "munster").iterdir():
            path.unlink()
    with pytest.raises(BadData, match=r"empty part.*part val"):
        cityscapes(folder)
