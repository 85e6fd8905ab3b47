import numpy as np
import pytest
import torch

from infopro.data import npz_file
from infopro.errors import BadData

RANDOM = np.random.default_rng(0)


def arrays(**changes):
    fields = {
        "x_train": RANDOM.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": RANDOM.integers(0, 256, (3, 5, 4, 3), dtype=np.uint8),
        "y_test": np.array([2, 1, 0]),
    }
    return {name: array for name, array in {**fields, **changes}.items() if array is not None}


def save(folder, **changes):
    np.savez(folder / "set.npz", **arrays(**changes))
    return folder / "set.npz"


def test_channels_last_is_read(tmp_path):
    held = arrays()
    data = npz_file(save(tmp_path, **held))
    assert (data.name, data.num_classes, data.class_names) == ("set", 3, ("0", "1", "2"))
    assert data.image_shape == (3, 5, 4) and data.mean == (0.5,) * 3 and not data.augmentation.flip
    assert np.array_equal(data.train.images.numpy(), held["x_train"].transpose(0, 3, 1, 2))
    assert data.test.labels.tolist() == [2, 1, 0] and data.test.labels.dtype == torch.int64


@pytest.mark.parametrize("shape", [(28, 27), (28, 27, 1), (1, 28, 27)])
def test_grey_images_get_one_channel(tmp_path, shape):
    parts = {
        name: np.full((number, *shape), 7, dtype=np.uint8) for name, number in (("x_train", 6), ("x_test", 3))
    }
    data = npz_file(save(tmp_path, **parts))
    assert data.image_shape == (1, 28, 27) and data.mean == (0.5,)
    assert (data.train.images == 7).all()


def test_medmnist_names_and_label_columns_are_read(tmp_path):
    held = arrays()
    names = {
        "x_train": "train_images",
        "x_test": "test_images",
        "y_train": "train_labels",
        "y_test": "test_labels",
    }
    renamed = {names[name]: array[:, None] if name[0] == "y" else array for name, array in held.items()}
    val = {"val_images": np.zeros((1, 9)), "val_labels": np.zeros(3)}
    np.savez(tmp_path / "med.npz", **renamed, **val)
    data = npz_file(tmp_path / "med.npz")
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert (data.train.images.shape, len(data.test)) == ((6, 3, 5, 4), 3)


def test_floats_and_other_whole_numbers_become_bytes(tmp_path):
    held = arrays()
    floats = {name: held[name].astype(np.float32) / 255 for name in ("x_train", "x_test")}
    longs = {name: held[name].astype(np.int64) for name in ("x_train", "x_test")}
    expected = torch.from_numpy(held["x_train"]).permute(0, 3, 1, 2)
    for changed in (floats, longs):
        assert torch.equal(npz_file(save(tmp_path, **{**held, **changed})).train.images, expected)


def test_floats_are_rounded_not_cut(tmp_path):
    parts = {"x_train": np.full((6, 5, 4, 3), 0.999), "x_test": np.full((3, 5, 4, 3), 0.001)}
    data = npz_file(save(tmp_path, **parts))
    assert (data.train.images == 255).all() and (data.test.images == 0).all()


def test_channels_first_is_read(tmp_path):
    held = arrays()
    first = {name: held[name].transpose(0, 3, 1, 2) for name in ("x_train", "x_test")}
    assert np.array_equal(npz_file(save(tmp_path, **first)).train.images.numpy(), first["x_train"])


def test_class_names_are_taken_over(tmp_path):
    data = npz_file(save(tmp_path, class_names=np.array(["ant", "bee", "cow", "dog"])))
    assert data.class_names == ("ant", "bee", "cow", "dog") and data.num_classes == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, r"lacks arrays: got x_train, y_train, x_test; allowed: x_train/.*train_images/"),
        ({"y_train": np.zeros(5, dtype=np.int64)}, r"x_train and y_train .*6 images, 5 labels"),
        ({"y_train": np.array([0, 1, 2, 0, 1, -1])}, r"y_train .*negative: got -1"),
        ({"y_train": np.zeros((6, 14), dtype=np.int64)}, r"y_train .*int64 \[6, 14\]"),
        ({"y_train": np.zeros(6)}, r"y_train .*float64"),
        ({"y_test": np.array([0, 1, 5])}, r"test labels .*\[5\]"),
        ({"y_train": np.array([0, 1, 2, 0, 1, 900])}, r"highest label 900, 6 training images"),
        ({"y_train": np.zeros(6, dtype=int), "y_test": np.zeros(3, dtype=int)}, r"highest label 0"),
        ({"class_names": np.array(["a", "b"])}, r"label 2, 2 class_names"),
        ({"x_train": np.zeros((6, 5, 4, 7), dtype=np.uint8)}, r"x_train .*\[6, 5, 4, 7\]"),
        ({"x_train": np.zeros((6, 20), dtype=np.uint8)}, r"x_train .*\[6, 20\]"),
        ({"x_train": np.zeros((6, 0, 4, 3), dtype=np.uint8)}, r"x_train .*without pixels"),
        (
            {"x_test": np.zeros((3, 9, 9, 3), dtype=np.uint8)},
            r"differ in shape: got \[3, 5, 4\] and \[3, 9, 9\]",
        ),
        ({"x_train": np.full((6, 5, 4, 3), 1.5)}, r"x_train .*1\.5.*floats in \[0, 1\]"),
        ({"x_train": np.full((6, 5, 4, 3), np.nan)}, r"x_train .*nan"),
        ({"x_train": np.full((6, 5, 4, 3), 256)}, r"x_train .*whole numbers 0 to 255"),
        ({"x_train": np.full((6, 5, 4, 3), "a")}, r"x_train .*wrong type"),
        (
            {"x_test": np.zeros((0, 5, 4, 3), dtype=np.uint8), "y_test": np.zeros(0, dtype=int)},
            r"x_test .*empty",
        ),
    ],
)
def test_wrong_contents_are_described(tmp_path, changes, message):
    path = save(tmp_path, **changes)
    with pytest.raises(BadData, match=message) as caught:
        npz_file(path)
    assert "set.npz" in str(caught.value)


def test_objects_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    path = save(tmp_path, y_train=np.array([Trap()] * 6, dtype=object))
    with pytest.raises(BadData, match="allow_pickle=False"):
        npz_file(path)


def test_files_that_are_no_npz_are_named(tmp_path):
    whole = save(tmp_path).read_bytes()
    for name, content in (("none", b""), ("text", b"hello"), ("cut", whole[: len(whole) // 2])):
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(BadData, match=rf"{name}\.npz") as caught:
            npz_file(tmp_path / f"{name}.npz")
        assert "pickle" not in str(caught.value)
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(BadData, match="single array"):
        npz_file(tmp_path / "array.npz")
