"""CamVid: street scenes with 11 classes, in the layout of SegNet's authors, as a folder or a zip archive."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath

from infopro.data._bad_images import REFUSED, BadImages, readable_pairs
from infopro.data._mask_pairs import found_pairs, mask_data
from infopro.data._mask_reader import MAX_BYTES, decode_once
from infopro.data._mask_types import VOID
from infopro.data._messages import quoted
from infopro.data._sources import Source
from infopro.data._types import ImageData
from infopro.errors import BadConfiguration, BadData

__all__ = ["CLASSES", "SETS", "camvid"]

# class: its colour in the label images of Brostow et al. 2009
CLASSES = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "sidewalk": (0, 0, 192),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
LAYOUT = "CamVid/{train,val,test}/NAME.* with CamVid/{train,val,test}annot/NAME.png, or a camvid*.zip of them"


def camvid(data_dir: Path | str, *, test: str = "test", max_bytes: int = MAX_BYTES) -> ImageData:
    """CamVid (Brostow, Fauqueur, Cipolla 2009) as SegNet divides it: 367 images to train on.

    `data_dir` holds the folder `CamVid` or one archive `camvid*.zip` with it, or is one of these. `test` is
    the part to test on: "test" (233 images), or "val" (101) to choose settings. Lists `CamVid/PART.txt` are
    followed where they exist. Value 11 of the label images is void.

    Errors:
        BadData: the set is not there, or is incomplete or broken. BadConfiguration: another part.
    """
    return decode_once(_files(Path(data_dir), test, REFUSED), max_bytes=max_bytes)


def _files(data_dir: Path, test: str, bad_images: BadImages) -> ImageData:
    if test not in ("test", "val"):
        raise BadConfiguration("unknown part of CamVid to test on", got=repr(test), allowed="test, val")
    source, folder = _located(data_dir)
    parts = ("train", test)
    lacking = [
        f"{folder}{part}{kind}"
        for part in parts
        for kind in ("", "annot")
        if not source.holds(folder + part + kind)
    ]
    if lacking:
        got = f"{quoted(source.root)} without {', '.join(lacking)}"
        raise BadData("CamVid is incomplete", got=got, allowed=LAYOUT)
    found = [
        found_pairs(source, folder + part, f"{folder}{part}annot", names=_listed_names(source, folder, part))
        for part in parts
    ]
    (train_pairs, test_pairs), skipped = readable_pairs(source.root, found, bad_images)
    return mask_data(
        "camvid" if test == "test" else f"camvid-{test}",
        source.root,
        train=train_pairs,
        test=test_pairs,
        classes={**{number: number for number in range(len(CLASSES))}, len(CLASSES): VOID},
        class_names=tuple(CLASSES),
        colours=tuple(CLASSES.values()),
        skipped=skipped,
    )


def _located(data_dir: Path) -> tuple[Source, str]:
    """The folder or archive, and what precedes the parts' names in it."""
    if data_dir.is_file() or (data_dir / "CamVid").is_dir() or (data_dir / "trainannot").is_dir():
        source = Source(data_dir)
        return source, "" if source.holds("trainannot") else "CamVid/"
    archives = sorted(path for path in data_dir.glob("*.zip") if path.name.lower().startswith("camvid"))
    if len(archives) == 1:
        return _located(archives[0])
    if archives:
        got = ", ".join(quoted(path) for path in archives)
        raise BadData("there are several archives of CamVid", got=got, remedy="name one with --data-dir")
    raise BadData(
        "camvid is not in the data folder",
        got=quoted(data_dir),
        allowed=LAYOUT,
        remedy="name the folder that holds it with --data-dir; it is not downloaded",
    )


def _listed_names(source: Source, folder: str, part: str) -> list[str] | None:
    """The names in CamVid/PART.txt, whose lines are "IMAGE LABELS" below whatever folder its author had."""
    text = source.text(f"{folder}{part}.txt")
    if text is None:
        return None
    return [PurePosixPath(line.split()[0]).stem for line in text.splitlines() if line.strip()]


def _load(test: str, *, data_dir: Path, download: bool, seed: int, bad_images: BadImages) -> ImageData:
    return _files(data_dir, test, bad_images)


SETS: dict[str, Callable[..., ImageData]] = {
    "camvid": partial(_load, "test"),
    "camvid-val": partial(_load, "val"),
}
