"""Cityscapes: street scenes with 19 classes, in the official layout, found by torchvision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from infopro.data._bad_images import REFUSED, BadImages, readable_pairs
from infopro.data._mask_pairs import joined, mask_data
from infopro.data._mask_reader import MAX_BYTES, decode_once
from infopro.data._mask_types import VOID
from infopro.data._messages import one_line, quoted
from infopro.data._packages import import_package
from infopro.data._sources import Source
from infopro.data._types import ImageData
from infopro.errors import BadData

__all__ = ["CLASSES", "SETS", "cityscapes"]

# class: label id in the files, colour (Cordts et al. 2016)
CLASSES = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
NUM_LABELS = 34  # ids 0 to 33; -1, a licence plate, would be 255 in a byte
IMAGE_END, MASK_END = "_leftImg8bit.png", "_gtFine_labelIds.png"
LAYOUT = "leftImg8bit/{train,val}/CITY/*.png with gtFine/{train,val}/CITY/*_labelIds.png"


def cityscapes(data_dir: Path | str, *, max_bytes: int = MAX_BYTES) -> ImageData:
    """Cityscapes' finely annotated images: 2975 to train on, the 500 of `val` to test on.

    `data_dir` holds the folders `leftImg8bit` and `gtFine`, or a folder `cityscapes` with them. Of the 34
    label ids 19 are classes, numbered as the benchmark does (its train ids); the others are void.

    Errors:
        BadData: the set is not there, or is incomplete or broken. MissingPackage: torchvision is missing.
    """
    return decode_once(_files(Path(data_dir), REFUSED), max_bytes=max_bytes)


def _files(data_dir: Path, bad_images: BadImages) -> ImageData:
    root = data_dir / "cityscapes" if (data_dir / "cityscapes").is_dir() else data_dir
    folders = [f"{kind}/{part}" for kind in ("leftImg8bit", "gtFine") for part in ("train", "val")]
    lacking = [folder for folder in folders if not (root / folder).is_dir()]
    if lacking:  # torchvision would unpack archives where it finds them
        raise BadData(
            "cityscapes is not in the data folder",
            got=f"{quoted(root)} without {', '.join(lacking)}",
            allowed=LAYOUT,
            remedy="name the folder that holds it with --data-dir; it is not downloaded",
        )
    (train, test), skipped = readable_pairs(root, [_pairs(root, "train"), _pairs(root, "val")], bad_images)
    numbers = {label: number for number, (label, _) in enumerate(CLASSES.values())}
    return mask_data(
        "cityscapes",
        root,
        train=train,
        test=test,
        classes={**{label: numbers.get(label, VOID) for label in range(NUM_LABELS)}, VOID: VOID},
        class_names=tuple(CLASSES),
        colours=tuple(colour for _, colour in CLASSES.values()),
        skipped=skipped,
    )


def _pairs(root: Path, part: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    purpose = "the data set cityscapes"
    datasets: Any = import_package("torchvision.datasets", extra="vision", purpose=purpose)
    try:
        reader = datasets.Cityscapes(root, split=part, mode="fine", target_type="semantic")
    except OSError as error:  # a file among the folders of the cities
        raise BadData(f"cannot read cityscapes ({one_line(error)})", got=quoted(root)) from error
    found = [Path(image).relative_to(root).as_posix() for image in reader.images]
    images = {_name(file): file for file in found if file.endswith(IMAGE_END)}
    # the reader makes the masks' names up from the images'
    masks = {_name(file): file for file in Source(root).files(f"gtFine/{part}") if file.endswith(MASK_END)}
    where = f"{quoted(root)}, part {part},"
    if not images and not masks:
        raise BadData("cityscapes has an empty part", got=where.rstrip(","), allowed=LAYOUT)
    return joined(images, masks, where=where)


def _name(file: str) -> str:
    """CITY/CITY_SEQUENCE_FRAME of an image's or a mask's file."""
    return "/".join(file.removesuffix(IMAGE_END).removesuffix(MASK_END).split("/")[2:])


def _load(*, data_dir: Path, download: bool, seed: int, bad_images: BadImages) -> ImageData:
    return _files(data_dir, bad_images)


SETS: dict[str, Callable[..., ImageData]] = {"cityscapes": _load}
