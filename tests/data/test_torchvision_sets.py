"""torchvision's own readers on tiny files in the published formats."""

import hashlib
import pickle
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io
import torch
import torchvision.datasets

from infopro.data import load
from infopro.errors import BadData, MissingPackage

RANDOM = np.random.default_rng(0)


def images(*shape):
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def digest(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_pickle(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))
    return [path.name, digest(path)]


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    folder, reader = tmp_path / "cifar-10-batches-py", torchvision.datasets.CIFAR10
    pixels = images(12, 3, 32, 32)
    labels = [number % 10 for number in range(12)]
    contents = [
        {"data": part.reshape(2, -1), "labels": labels[2 * place : 2 * place + 2]}
        for place, part in enumerate(np.split(pixels, 6))
    ]
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    written = [write_pickle(folder / name, content) for name, content in zip(names, contents, strict=True)]
    classes = [f"class {number}" for number in range(10)]
    meta = write_pickle(folder / "batches.meta", {"label_names": classes})
    monkeypatch.setattr(reader, "train_list", written[:5])
    monkeypatch.setattr(reader, "test_list", written[5:])
    monkeypatch.setattr(reader, "meta", {"filename": meta[0], "md5": meta[1], "key": "label_names"})
    return tmp_path, pixels, labels


def test_cifar10_is_read_with_the_papers_preparation(cifar10):
    folder, pixels, labels = cifar10
    data = load("cifar10", data_dir=folder)
    assert np.array_equal(data.train.images.numpy(), pixels[:10])
    assert np.array_equal(data.test.images.numpy(), pixels[10:])
    assert data.train.labels.tolist() + data.test.labels.tolist() == labels
    assert data.class_names[3] == "class 3" and data.image_shape == (3, 32, 32)
    assert data.mean == (125.3 / 255, 123.0 / 255, 113.9 / 255)
    assert data.std == (63.0 / 255, 62.1 / 255, 66.7 / 255)
    augmentation = data.augmentation
    assert (augmentation.crop_padding, augmentation.padding_mode, augmentation.flip) == (4, "reflect", True)


def test_the_sets_own_folder_may_be_named(cifar10):
    folder, pixels, _ = cifar10
    data = load("cifar10", data_dir=folder / "cifar-10-batches-py")
    assert np.array_equal(data.train.images.numpy(), pixels[:10])


def test_a_damaged_file_is_reported_with_the_folder(cifar10):
    folder, _, _ = cifar10
    (folder / "cifar-10-batches-py" / "data_batch_2").write_bytes(b"damaged")
    with pytest.raises(BadData, match="cannot read cifar10") as caught:
        load("cifar10", data_dir=folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_set_can_be_resized(cifar10):
    data = load("cifar10", data_dir=cifar10[0], image_size=16)
    assert data.image_shape == (3, 16, 16) and data.train.images.shape == (10, 3, 16, 16)


@pytest.mark.parametrize(
    ("name", "folder", "flip"), [("mnist", "MNIST", False), ("fashion-mnist", "FashionMNIST", True)]
)
def test_grey_sets_keep_one_channel(tmp_path, name, folder, flip):
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    pixels = {"train": images(4, 28, 28), "t10k": images(2, 28, 28)}
    for part, content in pixels.items():
        number = len(content)
        header = struct.pack(">iiii", 0x803, number, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + content.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">ii", 0x801, number) + bytes(range(number))
        )
    data = load(name, data_dir=tmp_path)
    assert np.array_equal(data.train.images.numpy(), pixels["train"][:, None])
    assert data.train.labels.tolist() == [0, 1, 2, 3] and data.test.labels.tolist() == [0, 1]
    assert (data.image_shape, data.mean, data.std) == ((1, 28, 28), (0.5,), (0.5,))
    assert (data.augmentation.crop_padding, data.augmentation.flip, data.num_classes) == (2, flip, 10)


def test_svhn_digit_zero_is_class_zero_and_is_not_flipped(tmp_path, monkeypatch):
    split_list = {}
    pixels = images(3, 32, 32, 3)
    for part in ("train", "test"):
        path = tmp_path / f"{part}_32x32.mat"
        scipy.io.savemat(
            path, {"X": pixels.transpose(1, 2, 3, 0), "y": np.array([[10], [1], [9]], dtype=np.uint8)}
        )
        split_list[part] = ["no address", path.name, digest(path)]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", split_list)
    data = load("svhn", data_dir=tmp_path)
    assert data.train.labels.tolist() == [0, 1, 9]
    assert np.array_equal(data.test.images.numpy(), pixels.transpose(0, 3, 1, 2))
    augmentation = data.augmentation
    assert (augmentation.crop_padding, augmentation.padding_mode, augmentation.flip) == (2, "zero", False)


def test_stl10_has_ten_classes(tmp_path, monkeypatch):
    folder, reader = tmp_path / "stl10_binary", torchvision.datasets.STL10
    folder.mkdir()
    pixels = images(2, 3, 96, 96)
    entries = {}
    for part in ("train", "test"):
        (folder / f"{part}_X.bin").write_bytes(pixels.transpose(0, 1, 3, 2).tobytes())  # columns first
        (folder / f"{part}_y.bin").write_bytes(bytes([1, 10]))
        entries[part] = [[f"{part}_{kind}.bin", digest(folder / f"{part}_{kind}.bin")] for kind in "Xy"]
    monkeypatch.setattr(reader, "train_list", entries["train"])
    monkeypatch.setattr(reader, "test_list", entries["test"])
    data = load("stl10", data_dir=tmp_path)
    assert data.num_classes == len(data.class_names) == 10
    assert data.train.labels.tolist() == [0, 9]
    assert torch.equal(data.train.images, torch.from_numpy(pixels))
    augmentation = data.augmentation
    assert (augmentation.crop_padding, augmentation.padding_mode, augmentation.flip) == (4, "zero", True)


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python"),
        ("svhn", "train_32x32.mat and test_32x32.mat"),
        ("stl10", "stl10_binary"),
        ("mnist", "MNIST/raw"),
        ("fashion-mnist", "FashionMNIST/raw"),
    ],
)
def test_a_missing_set_names_folder_contents_and_remedy(tmp_path, name, needed):
    with pytest.raises(BadData) as caught:
        load(name, data_dir=tmp_path / "nowhere")
    for part in (name, "nowhere", needed, "--download", "--data-dir"):
        assert part in str(caught.value)
    assert not (tmp_path / "nowhere").exists()


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    def fail(self, *arguments, **options):
        raise OSError("no network\nat all")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "__init__", fail)
    with pytest.raises(BadData, match=r"cannot read cifar10 .no network at all.*check the network"):
        load("cifar10", data_dir=tmp_path, download=True)


def test_a_torchvision_built_for_another_torch_is_named_with_the_repair(tmp_path, monkeypatch):
    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("infopro.data._packages.importlib", SimpleNamespace(import_module=broken))
    with pytest.raises(MissingPackage, match=r"torchvision.*nms does not exist.*infopro\[vision\]"):
        load("cifar10", data_dir=tmp_path)
