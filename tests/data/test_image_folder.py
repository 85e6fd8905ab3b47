import unicodedata
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from infopro.data import ImageFiles, ImageTensors, image_folder
from infopro.errors import BadConfiguration, BadData


def write(path, colour=(200, 100, 50), size=(40, 30), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode).save(path)
    return path


def flat(root, classes=("cat", "dog"), number=10):
    for label, name in enumerate(classes):
        for place in range(number):
            write(root / name / f"{place}.png", (label * 100, place * 10, 0))
    return root


def divided(root, test_name="val"):
    flat(root / "train", number=3)
    flat(root / test_name, number=2)
    return root


def colours(part):
    return {tuple(image[:, 4, 4].tolist()) for image in part.images}


def test_a_flat_folder_gives_a_seeded_tenth_of_each_class_to_testing(tmp_path):
    flat(tmp_path, number=20)
    data = image_folder(tmp_path, image_size=8)
    assert data.class_names == ("cat", "dog") and data.image_shape == (3, 8, 8)
    assert data.train.labels.bincount().tolist() == [18, 18]
    assert data.test.labels.bincount().tolist() == [2, 2]
    assert len(colours(data.train) | colours(data.test)) == 40
    assert colours(image_folder(tmp_path, image_size=8).test) == colours(data.test)
    assert colours(image_folder(tmp_path, image_size=8, seed=1).test) != colours(data.test)


@pytest.mark.parametrize("test_name", ["test", "val", "valid", "validation"])
def test_a_divided_folder_is_taken_as_it_is(tmp_path, test_name):
    data = image_folder(divided(tmp_path, test_name), image_size=8)
    assert (len(data.train), len(data.test)) == (6, 4)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.train.images[4, :, 0, 0].tolist() == [100, 10, 0]


def test_test_goes_before_val_unless_it_has_no_classes(tmp_path):
    divided(tmp_path, "val")
    write(tmp_path / "test" / "unlabelled.png")
    assert len(image_folder(tmp_path, image_size=8).test) == 4
    write(tmp_path / "test" / "cat" / "0.png")
    assert len(image_folder(tmp_path, image_size=8).test) == 1


def test_large_sets_stay_files_with_the_same_labels(tmp_path):
    divided(tmp_path)
    held, files = (
        image_folder(tmp_path, image_size=8, max_bytes=size) for size in (10 * 3 * 64, 10 * 3 * 64 - 1)
    )
    assert isinstance(held.train, ImageTensors) and isinstance(files.train, ImageFiles)
    assert torch.equal(held.train.labels, files.train.labels)
    assert files.train.paths[0] == tmp_path / "train" / "cat" / "0.png"
    assert held.augmentation == files.augmentation and held.augmentation.random_resized_crop


def test_unicode_deep_and_hidden_names(tmp_path):
    composed, separate = (unicodedata.normalize(form, "Äpfel") for form in ("NFC", "NFD"))
    write(tmp_path / "train" / separate / "ü b.JPG")
    write(tmp_path / "train" / "猫" / "deeper" / "1.jpeg")
    write(tmp_path / "val" / composed / "x.bmp")
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "猫" / "._1.jpeg").write_bytes(b"junk")
    (tmp_path / "train" / "猫" / "notes.txt").write_text("no image")
    data = image_folder(tmp_path, image_size=8)
    assert data.class_names == (composed, "猫")
    assert (len(data.train), data.test.labels.tolist()) == (2, [0])


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("RGBA", "png"), ("CMYK", "jpg"), ("P", "png"), ("P", "gif"), ("1", "png"), ("LA", "png")],
)
def test_every_kind_of_image_becomes_rgb(tmp_path, mode, suffix):
    flat(tmp_path)
    write(tmp_path / "ant" / f"0.{suffix}", (255, 255, 255), mode=mode)
    write(tmp_path / "ant" / f"1.{suffix}", (255, 255, 255), mode=mode)
    data = image_folder(tmp_path, image_size=8)
    assert (data.train.images[data.train.labels == 0] >= 253).all()


def test_transparent_palettes_give_no_warning_and_sixteen_bits_are_scaled(tmp_path):
    flat(tmp_path)
    palette = Image.new("RGB", (8, 8), (9, 9, 9)).convert("P")
    palette.save(tmp_path / "cat" / "p.png", transparency=bytes([0, 128] + [255] * 254))
    grey = np.full((8, 8), 0x8012, dtype=np.uint16)
    for name in ("a", "b"):
        (tmp_path / "deep").mkdir(exist_ok=True)
        Image.fromarray(grey).save(tmp_path / "deep" / f"{name}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = image_folder(tmp_path, image_size=8)
    assert (data.test.images[data.test.labels == 1] == 0x80).all()


def test_images_are_cut_from_the_middle_of_the_resized_image(tmp_path):
    flat(tmp_path)
    pixels = np.zeros((64, 128, 3), dtype=np.uint8)
    pixels[:, 64:] = 255
    for name in ("a", "b"):
        (tmp_path / "half").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "half" / f"{name}.png")
    image = image_folder(tmp_path, image_size=56)
    row = image.test.images[image.test.labels == 2][0, 0, 20].tolist()
    assert row == [0] * 28 + [255] * 28


@pytest.mark.parametrize("content", [b"", b"this is no image", None])
def test_broken_images_are_named(tmp_path, content):
    path = flat(tmp_path) / "dog" / "3.png"
    path.write_bytes(path.read_bytes()[:60] if content is None else content)
    with pytest.raises(BadData, match=r"dog/3\.png") as caught:
        image_folder(tmp_path, image_size=8)
    assert "\n" not in str(caught.value)


def test_several_broken_images_are_named_together(tmp_path):
    flat(tmp_path)
    for place in range(7):
        (tmp_path / "dog" / f"{place}.png").write_bytes(b"no")
    with pytest.raises(BadData, match=r"cannot read 7 images.*dog/0\.png.*dog/4\.png.*, and 2 more"):
        image_folder(tmp_path, image_size=8)


def test_a_link_to_nowhere_is_named(tmp_path):
    (flat(tmp_path) / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(BadData, match=r"gone\.png"):
        image_folder(tmp_path, image_size=8)


def test_a_class_only_in_the_test_part_is_named(tmp_path):
    write(divided(tmp_path) / "val" / "emu" / "0.png")
    with pytest.raises(BadData, match=r"'emu'.*val/emu"):
        image_folder(tmp_path, image_size=8)


def test_a_class_without_images_is_named(tmp_path):
    (flat(tmp_path) / "empty").mkdir()
    with pytest.raises(BadData, match=r"no images in .*empty"):
        image_folder(tmp_path, image_size=8)


def test_folders_that_are_no_data_set_are_refused(tmp_path):
    with pytest.raises(BadData, match=r"no such folder.*missing"):
        image_folder(tmp_path / "missing")
    with pytest.raises(BadData, match="with 0; allowed: at least 2"):
        image_folder(tmp_path)
    flat(tmp_path / "one", classes=("cat",))
    with pytest.raises(BadData, match="with 1; allowed: at least 2"):
        image_folder(tmp_path / "one")
    flat(tmp_path / "half" / "train")
    with pytest.raises(BadData, match=r"no test part.*half"):
        image_folder(tmp_path / "half")
    flat(tmp_path / "single", number=1)
    with pytest.raises(BadData, match="one image only"):
        image_folder(tmp_path / "single")
    with pytest.raises(BadConfiguration, match="image size"):
        image_folder(tmp_path / "one", image_size=0)
