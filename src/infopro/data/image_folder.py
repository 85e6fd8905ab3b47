"""A data set from a folder of class folders."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from infopro.data._bad_images import REFUSED, BadImages
from infopro.data._labels import labels_of
from infopro.data._messages import listed, one_line, quoted
from infopro.data._order import held_out_mask
from infopro.data._readable_images import readable_images
from infopro.data._seeds import counter_generator
from infopro.data._sources import SUFFIXES, is_hidden, walked
from infopro.data._types import Augmentation, ImageData, ImageFiles, Images
from infopro.errors import BadConfiguration, BadData

__all__ = ["SUFFIXES", "class_folders", "image_folder"]

TEST_FOLDERS = ("test", "val", "valid", "validation")  # the first that holds class folders
TEST_FRACTION = 0.1  # of each class, where the folder has no test part
LAYOUT = "ROOT/train/CLASS/*.jpg with ROOT/val/CLASS/*.jpg, or ROOT/CLASS/*.jpg"

Scan = dict[str, list[Path]]  # class name -> its files


def image_folder(
    root: Path | str, *, image_size: int = 224, seed: int = 0, max_bytes: int = 2 * 2**30
) -> ImageData:
    """ROOT/train/CLASS and ROOT/{test,val}/CLASS, or ROOT/CLASS of which a seeded 10 % is for testing.

    Classes are the folders' names in sorted order; images may lie deeper, also behind links; hidden files
    and other files are passed over. All images become RGB. Test images: the shorter side is resized to
    image_size * 256 / 224, then the middle is cut out. Training images: a random box of 8 to 100 % of the
    area, resized, and a flip. Where all images at `image_size` fit in `max_bytes` they are decoded once to
    ImageTensors, and the random boxes are taken from the middle that test images have too; otherwise they
    are read batch by batch (ImageFiles).

    Errors:
        BadData: an empty class, fewer than two classes, a class in the test part that the training part
            lacks, a folder that cannot be listed.
        BadImage: files that cannot be read: all of them where images are decoded at once, and else those
            whose head or size shows it; the others are found when they are read.
    """
    return class_folders(root, image_size=image_size, seed=seed, max_bytes=max_bytes)


def class_folders(
    root: Path | str,
    *,
    image_size: int = 224,
    seed: int = 0,
    max_bytes: int = 2 * 2**30,
    bad_images: BadImages = REFUSED,
) -> ImageData:
    """As `image_folder`, where files that cannot be read may be left out."""
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
    (train_images, test_images), skipped = readable_images(root, files, bad_images, max_bytes=max_bytes)
    _require_images(root, names, train_images, test_images)
    return ImageData(
        name=root.resolve().name,
        train=train_images,
        test=test_images,
        num_classes=len(names),
        class_names=tuple(names),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        image_shape=(3, image_size, image_size),
        augmentation=Augmentation(flip=True, random_resized_crop=True),
        skipped=skipped,
    )


def _require_images(root: Path, names: Sequence[str], train: Images, test: Images) -> None:
    """Of every class, after some were left out."""
    left = labels_of(train).bincount(minlength=len(names)).tolist()
    empty = [f"class {name!r}" for name, number in zip(names, left, strict=True) if not number]
    empty += [] if len(test) else ["the test part"]
    if empty:
        raise BadData(
            f"no image can be read of {listed(empty)}", got=quoted(root), remedy="repair some of them"
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
        files, others = _files_of(path)
        problems += [] if files else [f"no images in {quoted(path)}{others}"]
        # one name can be spelt in two ways in unicode, and file systems differ in which they keep
        scan.setdefault(unicodedata.normalize("NFC", path.name), []).extend(files)
    if problems:
        raise BadData(f"{quoted(folder)} is incomplete", got=listed(problems))
    return scan


def _class_folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not is_hidden(path.name) and path.is_dir())
    except OSError as error:
        raise BadData(f"cannot list the folder ({one_line(error)})", got=quoted(folder)) from error


def _files_of(folder: Path) -> tuple[list[Path], str]:
    """The images of a class, and what other files there are."""
    files = list(walked(folder))
    images = sorted(file for file in files if file.suffix.lower() in SUFFIXES)
    others = Counter(file.suffix.lower() or "no ending" for file in files).most_common(3)
    return images, f" (its files: {', '.join(f'{n} of {name}' for name, n in others)})" if others else ""


def _as_files(scan: Scan, names: Sequence[str], image_size: int) -> ImageFiles:
    pairs = [(file, label) for label, name in enumerate(names) for file in scan.get(name, [])]
    labels = torch.tensor([label for _, label in pairs], dtype=torch.int64)
    return ImageFiles(tuple(file for file, _ in pairs), labels, image_size)
