"""On tiny sets in the layout of SegNet's authors."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from infopro.data import VOID, MaskFiles, camvid, list_data, load
from infopro.data.camvid import CLASSES
from infopro.errors import BadConfiguration, BadData

PARTS = {"train": 3, "val": 1, "test": 2}


def write_part(root, part, number, size=(6, 8)):
    for kind in ("", "annot"):
        (root / f"{part}{kind}").mkdir(parents=True)
    for place in range(number):
        colour = (place * 10, len(part), 0)
        Image.new("RGB", size[::-1], colour).save(root / part / f"f_{place}.bmp")
        mask = np.arange(size[0] * size[1]).reshape(size) % 12
        Image.fromarray(mask.astype(np.uint8)).save(root / f"{part}annot" / f"f_{place}.png")


@pytest.fixture
def folder(tmp_path):
    for part, number in PARTS.items():
        write_part(tmp_path / "CamVid", part, number)
    return tmp_path


def packed(folder, name="camvid_tiny.zip"):
    target = folder / "packed" / name
    target.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted((folder / "CamVid").rglob("*")):
            archive.write(path, path.relative_to(folder))
    return target


def equal(one, two):
    return all(
        torch.equal(left.images, right.images) and torch.equal(left.masks, right.masks)
        for left, right in ((one.train, two.train), (one.test, two.test))
    )


def test_the_folder_is_read_with_eleven_classes_and_void(folder):
    data = load("camvid", data_dir=folder)
    assert (len(data.train), len(data.test), data.image_shape) == (3, 2, (3, 6, 8))
    expected = torch.arange(48).view(6, 8) % 12
    expected[expected == 11] = VOID
    assert (data.train.masks == expected.to(torch.uint8)).all()
    assert data.train.images[:, :2, 0, 0].tolist() == [[0, 5], [10, 5], [20, 5]]
    assert data.num_classes == 11 == len(data.colours) and data.class_names[3] == "road"
    assert data.colours[3] == (128, 64, 128) and len(set(CLASSES.values())) == 11
    assert data.mean == (0.485, 0.456, 0.406) and data.augmentation.scale == (0.5, 2.0)


def test_the_archive_is_read_as_the_folder_wherever_it_is_named(folder):
    whole, archive = load("camvid", data_dir=folder), packed(folder)
    for place in (folder / "CamVid", archive.parent, archive):
        assert equal(load("camvid", data_dir=place), whole)
    assert equal(camvid(archive), whole)


def test_an_archive_may_begin_with_the_parts(folder):
    with zipfile.ZipFile(folder / "parts.zip", "w") as archive:
        for path in sorted((folder / "CamVid").rglob("*.*")):
            archive.write(path, path.relative_to(folder / "CamVid"))
    assert equal(camvid(folder / "parts.zip"), camvid(folder))


def test_the_validation_part_can_be_tested_on(folder):
    assert {"camvid", "camvid-val"} <= set(list_data())
    data = load("camvid-val", data_dir=folder)
    assert (data.name, len(data.train), len(data.test)) == ("camvid-val", 3, 1)
    assert equal(camvid(folder, test="val"), data)
    with pytest.raises(BadConfiguration, match="test, val"):
        camvid(folder, test="train")


def test_lists_say_which_images_there_are_and_in_which_order(folder):
    lines = [f"/SegNet/CamVid/train/f_{n}.png /SegNet/CamVid/trainannot/f_{n}.png" for n in (2, 0)]
    (folder / "CamVid" / "train.txt").write_text("\n".join(lines) + "\n")
    data = camvid(folder)
    assert data.train.images[:, 0, 0, 0].tolist() == [20, 0] and len(data.test) == 2
    assert equal(camvid(packed(folder)), data)
    (folder / "CamVid" / "train.txt").write_text("train/gone.png trainannot/gone.png\n")
    with pytest.raises(BadData, match="1 without image: 'gone'; 1 without mask: 'gone'"):
        camvid(folder)


def test_large_sets_stay_files_also_in_an_archive(folder):
    data = camvid(packed(folder), max_bytes=0)
    assert isinstance(data.train, MaskFiles) and data.train.own_size == (6, 8)
    assert data.train.image_files[0] == "CamVid/train/f_0.bmp"


def test_a_size_is_reached_file_by_file(folder):
    data = load("camvid", data_dir=folder, image_size=(3, 4))
    assert data.train.images.shape == (3, 3, 3, 4) and data.image_shape == (3, 3, 4)


def test_a_value_above_eleven_is_named(folder):
    path = folder / "CamVid" / "valannot" / "f_0.png"
    Image.fromarray(np.full((6, 8), 12, dtype=np.uint8)).save(path)
    assert len(camvid(folder).train) == 3  # the part is not read
    with pytest.raises(BadData, match=r"valannot/f_0\.png.*got 12; allowed: 0 to 11"):
        camvid(folder, test="val")


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(BadData, match=r"camvid is not in the data folder.*nowhere.*--data-dir"):
        load("camvid", data_dir=tmp_path / "nowhere", download=True)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("CamVid/train/f.png", b"")
    with pytest.raises(BadData, match=r"incomplete.*other\.zip' without CamVid/trainannot, CamVid/test, "):
        camvid(tmp_path / "other.zip")
    (tmp_path / "bad.zip").write_bytes(b"no archive")
    with pytest.raises(BadData, match=r"cannot read the zip archive.*bad\.zip"):
        camvid(tmp_path / "bad.zip")
    packed(folder, "CamVid_2.zip")
    packed(folder, "camvid1.zip")
    with pytest.raises(BadData, match=r"several archives.*CamVid_2\.zip.*camvid1\.zip"):
        camvid(folder / "packed")


def test_a_damaged_member_is_named(folder):
    archive = packed(folder)
    content = bytearray(archive.read_bytes())
    start = content.find(b"CamVid/train/f_1.bmp") + len("CamVid/train/f_1.bmp")
    content[start + 20] ^= 255  # its checksum is then wrong
    archive.write_bytes(content)
    with pytest.raises(BadData, match=r"camvid_tiny\.zip/CamVid/train/f_1\.bmp"):
        camvid(archive)
