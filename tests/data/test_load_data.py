import numpy as np
import pytest
from PIL import Image

from infopro.data import list_data, load
from infopro.errors import BadConfiguration, BadData, UnknownName

KNOWN = [
    "camvid", "camvid-val", "cifar10", "cifar100", "cityscapes", "digits-on-photos", "digits-on-photos-masks",
    "fashion-mnist", "mnist", "stl10", "svhn", "voc",
]  # fmt: skip


def test_every_known_set_is_listed():
    assert list_data() == KNOWN


def test_a_near_name_is_proposed():
    with pytest.raises(UnknownName, match="did you mean cifar10"):
        load("cifra10")


@pytest.mark.parametrize("name", ["nowhere/folder", "./nowhere", "nowhere.npz", "/nowhere"])
def test_a_path_that_does_not_exist_is_bad_data(name):
    with pytest.raises(BadData, match="no such file or folder"):
        load(name)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "set.csv").write_text("1,2")
    with pytest.raises(BadData, match=r"set\.csv"):
        load(tmp_path / "set.csv")


def test_the_seed_reaches_the_rendering():
    first, again, other = (load("digits-on-photos", seed=seed) for seed in (0, 0, 1))
    assert (len(first.train), len(first.test)) == (5700, 2000)
    assert (first.train.images == again.train.images).all()
    assert not (first.train.images == other.train.images).all()


def test_folders_and_npz_files_are_found_by_path(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for place in range(2):
            Image.new("RGB", (9, 9)).save(tmp_path / "set" / name / f"{place}.png")
    assert load(tmp_path / "set").image_shape == (3, 224, 224)
    assert load(str(tmp_path / "set"), image_size=16).image_shape == (3, 16, 16)
    assert load(tmp_path / "set", image_size=(16, 16)).image_shape == (3, 16, 16)
    with pytest.raises(BadConfiguration, match="cut to squares: got 16 x 20"):
        load(tmp_path / "set", image_size=(16, 20))
    pixels, labels = np.zeros((4, 8, 8), dtype=np.uint8), np.array([0, 1, 0, 1])
    np.savez(tmp_path / "set.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    assert load(tmp_path / "set.npz").image_shape == (1, 8, 8)
    assert load(tmp_path / "set.npz", image_size=12).image_shape == (1, 12, 12)
    assert load(tmp_path / "set.npz", image_size=(12, 20)).test.images.shape == (4, 1, 12, 20)
