"""A data set from a folder of images and a folder of their masks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from infopro.data._bad_images import REFUSED, BadImages, cannot_read, readable_pairs, unreadable_of
from infopro.data._mask_pairs import default_colours, found_pairs, mask_data
from infopro.data._mask_reader import MAX_BYTES, decode_once, highest_values
from infopro.data._mask_types import VOID, MaskFiles
from infopro.data._messages import quoted
from infopro.data._order import held_out_mask
from infopro.data._seeds import counter_generator
from infopro.data._sources import Source
from infopro.data._types import ImageData
from infopro.errors import BadData, BadImage

__all__ = ["is_mask_folder", "mask_folder"]

TEST_FOLDERS = ("test", "val", "valid", "validation")  # the first that holds images and masks
TEST_FRACTION = 0.1  # of the images, where the folder has no test part
CLASS_LIST = "classes.txt"
LINE = re.compile(r"(?P<name>.*?)(?:\s+(?P<colour>\d+\s+\d+\s+\d+))?\s*")
LAYOUT = "ROOT/train/{images,masks} with ROOT/val/{images,masks}, or ROOT/{images,masks}"

Pairs = tuple[tuple[str, ...], tuple[str, ...]]
Classes = tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]  # names and colours


def is_mask_folder(root: Path) -> bool:
    """Whether a folder, or its part to train on, holds folders of images and masks."""
    return _has_both(root) or _has_both(root / "train")


def mask_folder(root: Path | str, *, seed: int = 0, max_bytes: int = MAX_BYTES) -> ImageData:
    """ROOT/train/{images,masks} and ROOT/{test,val}/{images,masks}, or ROOT/{images,masks}, 10 % for testing.

    An image and its mask have the same name apart from the ending, and may lie deeper. A mask is a grey or
    palette image, not a JPEG, whose values are class numbers from 0 on; 255 is void. `ROOT/classes.txt` names
    the classes, one a line, which `R G B` may follow; without it they are numbered up to the highest value
    found. Images become RGB. Sets of images of one size that fit in `max_bytes` are held as MaskTensors,
    others are read batch by batch (MaskFiles).

    Errors:
        BadData: empty folders, an image without mask or the reverse, a mask of another size than its image,
        in
            colours or with a value that is no class, a file that cannot be read. The message names it.
    """
    return decode_once(mask_files(root, seed=seed), max_bytes=max_bytes)


def mask_files(root: Path | str, *, seed: int = 0, bad_images: BadImages = REFUSED) -> ImageData:
    """As `mask_folder`, with nothing decoded yet."""
    root = Path(root)
    if not root.is_dir():
        raise BadData("there is no such folder", got=quoted(root))
    source = Source(root)
    (train, test), skipped = readable_pairs(root, _find_parts(source, seed), bad_images)
    names, colours = _listed_classes(source) or _numbered_classes(root, [train, test])
    return mask_data(
        root.resolve().name,
        root,
        train=train,
        test=test,
        classes={**{number: number for number in range(len(names))}, VOID: VOID},
        class_names=names,
        colours=colours,
        skipped=skipped,
    )


def _has_both(folder: Path) -> bool:
    return (folder / "images").is_dir() and (folder / "masks").is_dir()


def _find_parts(source: Source, seed: int) -> tuple[Pairs, Pairs]:
    root = source.root
    if not _has_both(root / "train"):
        if not _has_both(root):
            raise BadData("the folder does not hold images and masks", got=quoted(root), allowed=LAYOUT)
        return _divided(found_pairs(source, "images", "masks"), root, seed)
    for name in TEST_FOLDERS:
        if _has_both(root / name):
            train, test = (found_pairs(source, f"{part}/images", f"{part}/masks") for part in ("train", name))
            return train, test
    got = f"{quoted(root)} has train but none of {', '.join(TEST_FOLDERS)} with images and masks"
    raise BadData("the folder has no test part", got=got, allowed=LAYOUT)


def _divided(pairs: Pairs, root: Path, seed: int) -> tuple[Pairs, Pairs]:
    number = len(pairs[0])
    if number < 2:
        raise BadData("there is one image only, none is left for a test part", got=quoted(root))
    alike = torch.zeros(number, dtype=torch.int64)
    held = held_out_mask(alike, TEST_FRACTION, counter_generator("mask folder/test", seed)).tolist()

    def part(wanted: bool) -> Pairs:
        images, masks = (
            tuple(file for file, is_test in zip(files, held, strict=True) if is_test == wanted)
            for files in pairs
        )
        return images, masks

    return part(False), part(True)


def _listed_classes(source: Source) -> Classes | None:
    """From classes.txt, where there is one; a colour that is not given is a default one."""
    text = source.text(CLASS_LIST)
    if text is None:
        return None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    where = quoted(source.root / CLASS_LIST)
    if not 2 <= len(lines) <= VOID:
        raise BadData(f"{where} names too few or too many classes", got=len(lines), allowed=f"2 to {VOID}")
    names, colours = [], []
    for line, default in zip(lines, default_colours(len(lines)), strict=True):
        found = LINE.fullmatch(line)
        assert found is not None
        red, green, blue = map(int, (found["colour"] or " ".join(map(str, default))).split())
        if max(red, green, blue) > 255:
            raise BadData(f"a colour in {where} is out of range", got=repr(line), allowed="0 to 255")
        names.append(found["name"])
        colours.append((red, green, blue))
    return tuple(names), tuple(colours)


def _numbered_classes(root: Path, parts: Sequence[Pairs]) -> Classes:
    images, masks = (tuple(file for part in parts for file in part[kind]) for kind in (0, 1))
    files = MaskFiles(root, images, masks, classes={})
    try:
        values = highest_values(files)
    except BadImage as error:  # the images are told with the masks
        raise cannot_read(root, unreadable_of(root, parts)) from error
    highest = max(values)
    where = quoted(root / files.mask_files[values.index(highest)])
    if highest > VOID:
        raise BadData(f"a value in the mask {where} is no class", got=highest, allowed=f"0 to {VOID}")
    if highest < 1:
        raise BadData(
            f"the masks of {quoted(root)} have one class at most besides void (255)",
            got="values 0 and 255 only",
            remedy=f"number the classes 0, 1, ..., or name them in {CLASS_LIST}",
        )
    return tuple(str(number) for number in range(highest + 1)), default_colours(highest + 1)
