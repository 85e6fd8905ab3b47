"""On tiny images in torchvision's layout."""

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image

from infopro.data import VOID, JointAugmentation, MaskFiles, crop, load, voc
from infopro.errors import BadData

# of the development kit: background, aeroplane, bicycle, bird, ..., tv monitor
COLOURS = {
    0: (0, 0, 0),
    1: (128, 0, 0),
    2: (0, 128, 0),
    3: (128, 128, 0),
    15: (192, 128, 128),
    20: (0, 64, 128),
}


def write_pair(root, name, size, number):
    for folder in ("JPEGImages", "SegmentationClass"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (number, number, number)).save(root / "JPEGImages" / f"{name}.jpg")
    values = np.arange(size[0] * size[1]).reshape(size) % 22
    mask = Image.fromarray(np.where(values == 21, VOID, values).astype(np.uint8)).convert("P")
    mask.putpalette([number] * 768)
    mask.save(root / "SegmentationClass" / f"{name}.png")


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    sizes = {"2007_2": (6, 9), "2007_1": (5, 8), "2008_1": (7, 4)}
    for number, (name, size) in enumerate(sizes.items()):
        write_pair(root, name, size, 40 * number)
    (lists / "train.txt").write_text("2007_2\n2007_1\n")
    (lists / "val.txt").write_text("2008_1\n")
    return tmp_path


def test_images_of_their_own_sizes_stay_files(folder):
    data = load("voc", data_dir=folder)
    assert isinstance(data.train, MaskFiles) and (len(data.train), len(data.test)) == (2, 1)
    assert data.train.image_files[0].endswith("2007_2.jpg") and data.train.common_size is None
    assert data.image_shape == (3, 6, 9)  # the largest
    assert crop(data, size=(4, 4)).image_shape == (3, 4, 4)
    assert data.augmentation == JointAugmentation(scale=(0.5, 2.0), flip=True, colour=True)


def test_classes_and_colours_are_the_development_kits(folder):
    data = voc(folder)
    assert data.num_classes == 21 == len(data.class_names) == len(set(data.colours))
    assert (data.class_names[1], data.class_names[15]) == ("aeroplane", "person")
    assert all(data.colours[number] == colour for number, colour in COLOURS.items())


def test_palette_indices_are_the_classes_and_255_is_void(folder):
    data = load("voc", data_dir=folder, image_size=(6, 9))
    expected = torch.arange(54).view(6, 9) % 22
    expected[expected == 21] = VOID
    assert torch.equal(data.train.masks[0], expected.to(torch.uint8))
    assert data.train.images[1].unique().tolist() == [40]


@pytest.mark.parametrize("inner", ["VOCdevkit", "VOCdevkit/VOC2012"])
def test_the_sets_own_folder_may_be_named(folder, inner):
    assert len(voc(folder / inner).train) == 2


def test_a_missing_set_names_folder_contents_and_remedy(tmp_path):
    with pytest.raises(BadData) as caught:
        load("voc", data_dir=tmp_path / "nowhere")
    for part in ("nowhere", "VOC2012/JPEGImages", "SegmentationClass", "--download", "--data-dir"):
        assert part in str(caught.value)
    assert not (tmp_path / "nowhere").exists()


def test_a_set_that_is_there_is_not_downloaded_and_a_failed_download_is_one_line(
    folder, tmp_path, monkeypatch
):
    asked = []
    theirs = torchvision.datasets.VOCSegmentation.__init__

    def watched(self, root, *, download, **options):
        asked.append(download)
        if download:
            raise OSError("no network\nat all")
        theirs(self, root, download=False, **options)

    monkeypatch.setattr(torchvision.datasets.VOCSegmentation, "__init__", watched)
    assert len(voc(folder, download=True).train) == 2 and asked == [False, False]
    with pytest.raises(BadData, match=r"cannot read voc .no network at all.*check the network"):
        voc(tmp_path / "nowhere", download=True)


def test_listed_images_without_files_are_named(folder):
    root = folder / "VOCdevkit" / "VOC2012"
    (root / "SegmentationClass" / "2007_1.png").unlink()
    (root / "JPEGImages" / "2007_2.jpg").unlink()
    with pytest.raises(BadData, match="1 without image: '2007_2'; 1 without mask: '2007_1'"):
        voc(folder)
    (root / "ImageSets" / "Segmentation" / "train.txt").unlink()
    with pytest.raises(BadData, match="cannot read voc"):
        voc(folder)
