"""A data set from a folder of class folders."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from infopro.data._decode import central_crop
from infopro.data._messages import listed, one_line, quoted
from infopro.data._order import held_out_mask
from infopro.data._seeds import counter_generator
from infopro.data._sources import SUFFIXES
from infopro.data._types import Augmentation, ImageData, ImageFiles, Images, ImageTensors
from infopro.errors import BadConfiguration, BadData

__all__ = ["SUFFIXES", "image_folder"]

TEST_FOLDERS = ("test", "val", "valid", "validation")  # the first that holds class folders
TEST_FRACTION = 0.1  # of each class, where the folder has no test part
LAYOUT = "ROOT/train/CLASS/*.jpg with ROOT/val/CLASS/*.jpg, or ROOT/CLASS/*.jpg"

Scan = dict[str, list[Path]]  # class name -> its files


def image_folder(
    root: Path | str, *, image_size: int = 224, seed: int = 0, max_bytes: int = 2 * 2**30
) -> ImageData:
    """ROOT/train/CLASS and ROOT/{test,val}/CLASS, or ROOT/CLASS of which a seeded 10 % is for testing.

    Classes are the folders' names in sorted order; images may lie deeper; hidden files and other files are
    passed over. All images become RGB. Test images: the shorter side is resized to image_size * 256 / 224,
    then the middle is cut out. Training images: a random box of 8 to 100 % of the area, resized, and a
    flip. Where all images at `image_size` fit in `max_bytes` they are decoded once to ImageTensors, and the
    random boxes are taken from the middle that test images have too; otherwise they are read batch by batch
    (ImageFiles).

    Errors:
        BadData: an empty folder, class or file, fewer than two classes, a class in the test part that the
            training part lacks; where images are decoded at once, also each broken file. The message names
            it.
    """
    if image_size < 1:
        raise BadConfiguration("image size is not positive", got=image_size, allowed="1 or more pixels")
    root = Path(root)
    train, test = _find_parts(root, seed)
    names = sorted(train)
    extra = sorted(set(test) - set(train))
    if extra:
        folder = quoted(test[extra[0]][0].parent)
        raise BadData(f"class {extra[0]!r} is in the test part but not in the training part", got=folder)
    files = [_as_files(scan, names, image_size) for scan in (train, test)]
    fits = sum(map(len, files)) * 3 * image_size**2 <= max_bytes
    parts: Sequence[Images] = _decode_all(files) if fits else files
    return ImageData(
        name=root.resolve().name,
        train=parts[0],
        test=parts[1],
        num_classes=len(names),
        class_names=tuple(names),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        image_shape=(3, image_size, image_size),
        augmentation=Augmentation(flip=True, random_resized_crop=True),
    )


def _find_parts(root: Path, seed: int) -> tuple[Scan, Scan]:
    if not root.is_dir():
        raise BadData("there is no such folder", got=quoted(root))
    if not (root / "train").is_dir():
        return _divide(_scan(root), seed)
    for name in TEST_FOLDERS:
        if (root / name).is_dir() and _class_folders(root / name):
            return _scan(root / "train"), _scan(root / name, minimum=1)
    got = f"{quoted(root)} has train but none of {', '.join(TEST_FOLDERS)} with class folders"
    raise BadData("the folder has no test part", got=got, allowed=LAYOUT)


def _divide(scan: Scan, seed: int) -> tuple[Scan, Scan]:
    labels = torch.tensor([label for label, files in enumerate(scan.values()) for _ in files])
    held = held_out_mask(labels, TEST_FRACTION, counter_generator("image folder/test", seed)).tolist()
    every = [(name, file) for name, files in scan.items() for file in files]
    train: Scan = {name: [] for name in scan}
    test: Scan = {name: [] for name in scan}
    for (name, file), is_test in zip(every, held, strict=True):
        (test if is_test else train)[name].append(file)
    if not any(held):
        raise BadData(
            "every class has one image only, none is left for a test part", got=quoted(every[0][1].parent)
        )
    return train, {name: files for name, files in test.items() if files}


def _scan(folder: Path, *, minimum: int = 2) -> Scan:
    classes = _class_folders(folder)
    if len(classes) < minimum:
        got = f"{quoted(folder)} with {len(classes)}"
        raise BadData(
            "a folder of class folders has too few classes", got=got, allowed=f"at least {minimum}: {LAYOUT}"
        )
    scan: Scan = {}
    problems = []
    for path in classes:
        files = _image_files(path)
        problems += [] if files else [f"no images in {quoted(path)}"]
        problems += [f"empty or missing file {quoted(file)}" for file in files if not _has_content(file)]
        # one name can be spelt in two ways in unicode, and file systems differ in which they keep
        scan.setdefault(unicodedata.normalize("NFC", path.name), []).extend(files)
    if problems:
        raise BadData(f"{quoted(folder)} is incomplete", got=listed(problems))
    return scan


def _has_content(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except OSError:  # a link to nowhere
        return False


def _class_folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise BadData(f"cannot list the folder ({one_line(error)})", got=quoted(folder)) from error


def _image_files(folder: Path) -> list[Path]:
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                found.append(Path(place, name))
    return sorted(found)


def _as_files(scan: Scan, names: Sequence[str], image_size: int) -> ImageFiles:
    pairs = [(file, label) for label, name in enumerate(names) for file in scan.get(name, [])]
    labels = torch.tensor([label for _, label in pairs], dtype=torch.int64)
    return ImageFiles(tuple(file for file, _ in pairs), labels, image_size)


def _decode_all(parts: Sequence[ImageFiles]) -> list[ImageTensors]:
    decoded = [_decode(part) for part in parts]
    broken = {path: error for _, errors in decoded for path, error in errors.items()}
    if len(broken) == 1:
        raise next(iter(broken.values()))
    if broken:
        what = f"cannot read {len(broken)} images"
        raise BadData(
            what, got=listed([quoted(path) for path in sorted(broken)]), remedy="repair or remove them"
        )
    return [tensors for tensors, _ in decoded]


def _decode(files: ImageFiles) -> tuple[ImageTensors, dict[Path, BadData]]:
    """The images, and the errors of those that cannot be read."""

    def decode(path: Path) -> Tensor | BadData:
        try:
            return central_crop(path, files.image_size)
        except BadData as error:
            return error

    images = torch.empty((len(files), 3, files.image_size, files.image_size), dtype=torch.uint8)
    broken = {}
    # threads: Pillow decodes and resizes outside the interpreter lock
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for place, image in enumerate(pool.map(decode, files.paths)):
            if isinstance(image, BadData):
                broken[files.paths[place]] = image
            else:
                images[place] = image
    return ImageTensors(images, files.labels), broken
