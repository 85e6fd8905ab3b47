"""Pascal VOC 2012: photographs with 20 classes of objects and a background, found by torchvision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from infopro.data._bad_images import REFUSED, BadImages, readable_pairs
from infopro.data._mask_pairs import default_colours, joined, mask_data
from infopro.data._mask_reader import MAX_BYTES, decode_once
from infopro.data._mask_types import VOID
from infopro.data._messages import one_line, quoted
from infopro.data._packages import import_package
from infopro.data._types import ImageData
from infopro.errors import BadData

__all__ = ["CLASSES", "SETS", "voc"]

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train",
    "tv monitor",
)  # fmt: skip
FOLDER = "VOCdevkit/VOC2012"
NEEDS = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")


def voc(data_dir: Path | str, *, download: bool = False, max_bytes: int = MAX_BYTES) -> ImageData:
    """Pascal VOC 2012 for segmentation (Everingham et al. 2010): 1464 images to train, 1449 to test on.

    `data_dir` holds `VOCdevkit/VOC2012`, as torchvision lays it out; the network is used only with
    `download=True`, and only where the set is missing. The additional annotations of Hariharan et al. 2011
    are not used. Tested on `val`. Outlines (255) are void.

    Errors:
        BadData: the set is not there, or is incomplete or broken. MissingPackage: torchvision is missing.
    """
    return decode_once(_files(Path(data_dir), download, REFUSED), max_bytes=max_bytes)


def _files(data_dir: Path, download: bool, bad_images: BadImages) -> ImageData:
    if tuple(data_dir.parts[-2:]) == tuple(FOLDER.split("/")) or data_dir.name == "VOCdevkit":
        data_dir = data_dir.parents[1 if data_dir.name == "VOC2012" else 0]  # the set's own folder was named
    missing = [f"{FOLDER}/{need}" for need in NEEDS if not (data_dir / FOLDER / need).exists()]
    if missing and not download:
        raise BadData(
            "voc is not in the data folder",
            got=f"{quoted(data_dir)} without {' and '.join(missing)}",
            remedy="pass --download, or name the folder that holds it with --data-dir",
        )
    found = [_pairs(data_dir, "train", download and bool(missing)), _pairs(data_dir, "val", False)]
    (train, test), skipped = readable_pairs(data_dir, found, bad_images)
    return mask_data(
        "voc",
        data_dir,
        train=train,
        test=test,
        classes={**{number: number for number in range(len(CLASSES))}, VOID: VOID},
        class_names=CLASSES,
        colours=default_colours(len(CLASSES)),
        skipped=skipped,
    )


def _pairs(data_dir: Path, part: str, download: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    datasets: Any = import_package("torchvision.datasets", extra="vision", purpose="the data set voc")
    try:
        reader = datasets.VOCSegmentation(data_dir, year="2012", image_set=part, download=download)
    except Exception as error:  # the network and the archive reader each raise their own
        remedy = "check the network and the free space" if download else "unpack it again"
        raise BadData(f"cannot read voc ({one_line(error)})", got=quoted(data_dir), remedy=remedy) from error
    images, masks = (_existing(data_dir, files) for files in (reader.images, reader.masks))
    names = [Path(file).stem for file in reader.images]
    return joined(images, masks, where=f"{quoted(data_dir)}, part {part},", names=names)


def _existing(data_dir: Path, files: list[str]) -> dict[str, str]:
    """From the name without ending to the file; those only that are there."""
    return {Path(f).stem: Path(f).relative_to(data_dir).as_posix() for f in files if Path(f).exists()}


def _load(*, data_dir: Path, download: bool, seed: int, bad_images: BadImages) -> ImageData:
    return _files(data_dir, download, bad_images)


SETS: dict[str, Callable[..., ImageData]] = {"voc": _load}
