"""Images and their masks, from files to tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from infopro.data._decode import class_values, extent, whole_image
from infopro.data._mask_types import VOID, MaskFiles, MaskTensors
from infopro.data._messages import listed, quoted
from infopro.data._resample import resize_images, resize_masks
from infopro.data._sources import Source
from infopro.data._threads import for_all
from infopro.data._types import ImageData, Images
from infopro.errors import BadData, BadImage

__all__ = ["MAX_BYTES", "MaskReader", "decode_once", "highest_values", "surveyed"]

MAX_BYTES = 2 * 2**30  # a data set up to this size is decoded once
CHANNELS = 4  # bytes of a pixel: the image's three and the mask's one
VALUES = 256  # of a pixel in a mask's file
UNLISTED = -1

T = TypeVar("T")


class MaskReader:
    """Reads the pairs of one part of a data set, in one process."""

    def __init__(self, files: MaskFiles) -> None:
        self._files = files
        self._source = Source(files.root)
        self._table = np.full(VALUES, UNLISTED, dtype=np.int16)  # from a value to its class
        for value, number in files.classes.items():
            self._table[value] = number

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """The image, uint8 [3, H, W], and its mask, uint8 [H, W].

        Errors:
            BadData: a file that cannot be read, a mask of another size or with a value that is no class.
        """
        files = self._files
        image_path, mask_path = (files.root / each[index] for each in (files.image_files, files.mask_files))
        image = whole_image(image_path, self._source.content(files.image_files[index]))
        values = class_values(mask_path, self._source.content(files.mask_files[index]))
        if tuple(image.shape[1:]) != values.shape:
            raise _other_size([_sizes(image_path, tuple(image.shape[1:]), mask_path, values.shape)])
        mask = torch.from_numpy(self._classes(values, mask_path))
        if files.size is None:
            return image, mask
        return resize_images(image[None], files.size)[0], resize_masks(mask[None], files.size)[0]

    def highest(self, index: int) -> int:
        """The highest value of a mask's file, VOID left out; 0 where all is VOID."""
        name = self._files.mask_files[index]
        values = class_values(self._files.root / name, self._source.content(name))
        return int(np.where(values == VOID, 0, values).max())

    def unreadable(self, index: int) -> dict[str, str]:
        """Those of the two files that cannot be read, and why not; what is in them is not looked at."""
        files, reasons = self._files, {}
        for read, name in ((whole_image, files.image_files[index]), (class_values, files.mask_files[index])):
            try:
                read(files.root / name, self._source.content(name))
            except BadImage as error:
                reasons[name] = error.reason
            except BadData:
                pass  # a mask in colours: said where it is taken for one
        return reasons

    def extents(self, index: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows and columns of the image's and of the mask's file."""
        files = self._files
        image, mask = (
            extent(files.root / name, self._source.content(name))
            for name in (files.image_files[index], files.mask_files[index])
        )
        return image, mask

    def _classes(self, values: np.ndarray[Any, Any], path: Path) -> np.ndarray[Any, Any]:
        """uint8 [H, W]."""
        if values.dtype != np.uint8:  # 16 bits or more
            known = (values >= 0) & (values < VALUES)
            found = np.where(known, self._table[np.where(known, values, 0)], UNLISTED)
        else:
            found = self._table[values]
        if (found == UNLISTED).any():
            wrong = sorted({int(value) for value in values[found == UNLISTED]})
            raise BadData(
                f"a value in the mask {quoted(path)} is no class",
                got=listed([str(value) for value in wrong]),
                allowed=_ranges(sorted(self._files.classes)),
                remedy="correct the mask, or the list of classes",
            )
        return found.astype(np.uint8)


def surveyed(parts: Sequence[MaskFiles]) -> list[tuple[MaskFiles, tuple[int, int]]]:
    """The same with `own_size` found out, and the largest rows and columns.

    Errors:
        BadData: no images at all, files that cannot be read, masks of another size than their images; of all
            parts in one message.
    """
    empty = [files for files in parts if not len(files)]
    if empty:
        raise BadData("a part of the data set has no images", got=quoted(empty[0].root))
    extents = _for_all(_jobs(files, MaskReader(files).extents) for files in parts)
    wrong = [
        _sizes(files.root / image, of_image, files.root / mask, of_mask)
        for files, found in zip(parts, extents, strict=True)
        for image, mask, (of_image, of_mask) in zip(files.image_files, files.mask_files, found, strict=True)
        if of_image != of_mask
    ]
    if wrong:
        raise _other_size(wrong)
    return [_sized(files, {size for size, _ in found}) for files, found in zip(parts, extents, strict=True)]


def _sized(files: MaskFiles, sizes: set[tuple[int, int]]) -> tuple[MaskFiles, tuple[int, int]]:
    largest = max(rows for rows, _ in sizes), max(columns for _, columns in sizes)
    return replace(files, own_size=largest if len(sizes) == 1 else None), largest


def highest_values(files: MaskFiles) -> list[int]:
    """The highest value of each mask's file, VOID left out; 0 where all is VOID."""
    return _for_all([_jobs(files, MaskReader(files).highest)])[0]


def decode_once(data: ImageData, *, max_bytes: int = MAX_BYTES) -> ImageData:
    """The same data held as MaskTensors, where all images have one size and fit; otherwise itself.

    Errors:
        BadData: what cannot be read; all such files in one message.
    """
    parts = [part for part in (data.train, data.test) if isinstance(part, MaskFiles)]
    sizes = [part.common_size for part in parts if part.common_size is not None]
    if not parts or len(sizes) < len(parts):
        return data
    pixels = sum(len(part) * rows * columns for part, (rows, columns) in zip(parts, sizes, strict=True))
    if pixels * CHANNELS > max_bytes:
        return data
    prepared = [_to_decode(part) for part in (data.train, data.test)]
    _for_all(jobs for _, jobs in prepared)
    (train, _), (test, _) = prepared
    return replace(data, train=train, test=test)


def _to_decode(files: Images) -> tuple[Images, list[Callable[[], None]]]:
    """What will hold the decoded images and masks, and the work that fills it."""
    if not isinstance(files, MaskFiles) or files.common_size is None:
        return files, []
    rows, columns = files.common_size
    images = torch.empty((len(files), 3, rows, columns), dtype=torch.uint8)
    masks = torch.empty((len(files), rows, columns), dtype=torch.uint8)
    reader = MaskReader(files)

    def decode(index: int) -> None:
        images[index], masks[index] = reader.pair(index)

    return MaskTensors(images, masks), _jobs(files, decode)


def _jobs(files: MaskFiles, read: Callable[[int], T]) -> list[Callable[[], T]]:
    return [partial(read, index) for index in range(len(files))]


def _for_all(parts: Iterable[Sequence[Callable[[], T]]]) -> list[list[T]]:
    """What each part's jobs give, in threads."""

    def attempt(job: Callable[[], T]) -> T | BadData:
        try:
            return job()
        except BadData as error:
            return error

    results = [for_all(jobs, attempt) for jobs in parts]
    errors = [result for part in results for result in part if isinstance(result, BadData)]
    if len(errors) > 1:
        raise _unfit(errors)
    if errors:
        raise errors[0]
    return [[result for result in part if not isinstance(result, BadData)] for part in results]


def _unfit(errors: Sequence[BadData]) -> BadData:
    what, got = f"{len(errors)} images or masks are unfit", listed([str(each) for each in errors])
    if not any(isinstance(each, BadImage) for each in errors):
        return BadData(what, got=got)
    files: dict[str, str] = {}
    for each in errors:
        files.update(each.files if isinstance(each, BadImage) else {str(each): ""})
    return BadImage(what, got=got, files=files)


def _other_size(sizes: list[str]) -> BadData:
    return BadData("masks differ in size from their images", got=listed(sizes), remedy="scale or remove them")


def _sizes(image: Path, of_image: tuple[int, ...], mask: Path, of_mask: tuple[int, ...]) -> str:
    (rows, columns), (mask_rows, mask_columns) = of_image, of_mask
    return f"{quoted(image)} of {rows} x {columns} with {quoted(mask)} of {mask_rows} x {mask_columns}"


def _ranges(numbers: list[int]) -> str:
    """Such as 0 to 11, 255."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in runs)
