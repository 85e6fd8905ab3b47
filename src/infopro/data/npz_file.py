"""A data set from a NumPy .npz file."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from infopro.data._messages import listed, one_line, quoted
from infopro.data._types import Augmentation, ImageData, ImageTensors
from infopro.errors import BadData

__all__ = ["npz_file"]

Arrays = Mapping[str, np.ndarray[Any, Any]]

NAMES = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),  # MedMNIST
)
UNQUESTIONED = 2**30  # bytes that any file may unpack to
MOST_EXPANSION = 200  # times its size, for a file that unpacks to more; photographs: 1 to 3
PAIRS = " or ".join("/".join(names) for names in NAMES)


def npz_file(path: Path | str) -> ImageData:
    """Images and labels of one file: x_train, y_train, x_test, y_test, or MedMNIST's train_images and so on.

    Shapes: images [N, H, W], [N, H, W, C] or [N, C, H, W] with C of 1 or 3; whole numbers 0 to 255, or
    floats in [0, 1], which are rounded to them. Labels whole numbers [N] or [N, 1]. Names of the classes
    from `class_names` where the file has it. Normalisation 127.5 / 255; augmentation: reflected padding of
    2, no flip, since the images may be of digits or letters. A MedMNIST file's validation images are left
    out.

    Errors:
        BadData: what is wrong and what the file holds; arrays of Python objects are never read.
    """
    path = Path(path)
    arrays = _read(path)
    names = next((names for names in NAMES if set(names) <= set(arrays)), None)
    if names is None:
        got = listed(list(arrays)) or "no arrays"
        raise BadData(f"{quoted(path)} lacks arrays", got=got, allowed=PAIRS)
    train, test = (_part(path, arrays, *pair) for pair in (names[:2], names[2:]))
    if train.images.shape[1:] != test.images.shape[1:]:
        got = f"{list(train.images.shape[1:])} and {list(test.images.shape[1:])}"
        raise BadData(f"{quoted(path)}: train and test images differ in shape", got=got)
    class_names = _class_names(path, arrays, train, test)
    channels, height, width = train.images.shape[1:]
    return ImageData(
        name=path.stem,
        train=train,
        test=test,
        num_classes=len(class_names),
        class_names=class_names,
        mean=(0.5,) * channels,
        std=(0.5,) * channels,
        image_shape=(channels, height, width),
        augmentation=Augmentation(crop_padding=2 if min(height, width) > 2 else 0),
    )


def _read(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    wanted = {name for names in NAMES for name in names} | {"class_names"}
    unread = np.empty(0)
    try:
        with path.open("rb") as stream:  # numpy leaves a broken file open
            # numpy would take anything else for a pickle, and advise to read it
            if stream.read(2) not in (b"PK", b"\x93N"):
                raise ValueError("it is no zip archive")
            stream.seek(0)
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            if file.zip is not None:  # numpy's stubs
                _require_bounded(file.zip, wanted)
            return {name: _array(file, name) if name in wanted else unread for name in file.files}
    except Exception as error:  # zipfile, zlib, lzma and numpy each raise their own
        raise BadData(f"cannot read the .npz file ({one_line(error)})", got=quoted(path)) from error


def _array(file: Any, name: str) -> np.ndarray[Any, Any]:
    array = file[name]
    if not isinstance(array, np.ndarray):  # numpy gives the bytes of what is none
        raise ValueError(f"{name} is not an array")
    return array


def _require_bounded(archive: zipfile.ZipFile, wanted: Collection[str]) -> None:
    """No member is unpacked to gigabytes out of next to nothing."""
    members = [member for member in archive.infolist() if member.filename.removesuffix(".npy") in wanted]
    unpacked, packed = sum(m.file_size for m in members), sum(m.compress_size for m in members)
    if unpacked > UNQUESTIONED and unpacked > MOST_EXPANSION * packed:
        raise ValueError(f"its {packed} bytes would become {unpacked}")


def _part(path: Path, arrays: Arrays, images_name: str, labels_name: str) -> ImageTensors:
    images = _images(f"{images_name} of {quoted(path)}", arrays[images_name])
    labels = _labels(f"{labels_name} of {quoted(path)}", arrays[labels_name])
    if len(images) != len(labels):
        got = f"{len(images)} images, {len(labels)} labels"
        raise BadData(f"{images_name} and {labels_name} of {quoted(path)} differ in length", got=got)
    if not len(images):
        raise BadData(f"{images_name} of {quoted(path)} is empty")
    return ImageTensors(torch.from_numpy(images), torch.from_numpy(labels))


def _images(what: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """uint8 [N, C, H, W]."""
    shape = list(array.shape)
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    elif not (array.ndim == 4 and shape[1] in (1, 3)):
        raise BadData(
            f"{what} has the wrong shape",
            got=shape,
            allowed="[N, H, W], [N, H, W, C], [N, C, H, W], C 1 or 3",
        )
    if array.size == 0 and len(array):
        raise BadData(f"{what} holds images without pixels", got=shape)
    return np.ascontiguousarray(_as_bytes(what, array))


def _as_bytes(what: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype == np.uint8 or not array.size:
        return array.astype(np.uint8, copy=False)
    if array.dtype.kind not in "iuf":
        raise BadData(f"{what} has the wrong type", got=array.dtype, allowed="uint8, or floats in [0, 1]")
    is_float = array.dtype.kind == "f"
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= (1 if is_float else 255)):  # false for NaN too
        allowed = "floats in [0, 1]" if is_float else "whole numbers 0 to 255"
        raise BadData(f"{what} is out of range", got=f"{array.dtype} from {low} to {high}", allowed=allowed)
    return (np.rint(array * np.float32(255)) if is_float else array).astype(np.uint8)


def _labels(what: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """int64 [N]."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iu":
        got = f"{array.dtype} {list(array.shape)}"
        raise BadData(
            f"{what} are not class numbers",
            got=got,
            allowed="whole numbers [N] or [N, 1], one class an image",
        )
    if array.size and array.min() < 0:
        raise BadData(f"{what} are negative", got=array.min(), allowed="0 to the number of classes - 1")
    return array.astype(np.int64)


def _class_names(path: Path, arrays: Arrays, train: ImageTensors, test: ImageTensors) -> tuple[str, ...]:
    highest = max(int(part.labels.max()) for part in (train, test))
    if "class_names" in arrays and arrays["class_names"].ndim == 1:
        names = tuple(str(name) for name in arrays["class_names"])
        if highest >= len(names):
            got = f"label {highest}, {len(names)} class_names"
            raise BadData(f"{quoted(path)} has a label without a name", got=got)
        return names
    missing = set(test.labels.tolist()) - set(train.labels.tolist())
    if missing:
        raise BadData(f"{quoted(path)} has test labels that no training image has", got=sorted(missing)[:10])
    if not 1 <= highest < len(train):
        got = f"highest label {highest}, {len(train)} training images"
        raise BadData(
            f"the labels of {quoted(path)} do not number classes", got=got, allowed="0, 1, ... without gaps"
        )
    return tuple(str(label) for label in range(highest + 1))
