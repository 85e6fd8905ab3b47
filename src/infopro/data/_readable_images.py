"""Labelled image files, those that cannot be read found first; decoded where all of them fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from infopro.data._bad_images import BadImages, cannot_read, found_unreadable
from infopro.data._decode import central_crop, extent, require_content, require_decodable
from infopro.data._threads import for_all
from infopro.data._types import ImageFiles, Images, ImageTensors
from infopro.errors import BadImage

__all__ = ["MOST_HEADS", "readable_images"]

MOST_HEADS = 100_000  # files whose heads are looked at before training: some 10 seconds; of more, the sizes

Part = TypeVar("Part", ImageFiles, ImageTensors)


def readable_images(
    root: Path, parts: Sequence[ImageFiles], bad_images: BadImages, *, max_bytes: int
) -> tuple[list[Images], dict[str, str]]:
    """The parts, decoded if all fit in `max_bytes`, and which files below `root` were left out, and why.

    Errors:
        BadImage: files that cannot be read and are not to be left out, all in one message.
    """
    # of all files: a run that goes on must not decide otherwise because it leaves some out at once
    fits = sum(len(part) * 3 * part.image_size**2 for part in parts) <= max_bytes
    known = bad_images.known or {} if bad_images.skip else {}
    parts = [_kept(part, part.paths, {root / name for name in known}) for part in parts]
    kept: list[Images]
    if fits:
        decoded = [_decode(part) for part in parts]
        found = {path: reason for _, broken in decoded for path, reason in broken.items()}
        kept = [_kept(images, part.paths, found) for (images, _), part in zip(decoded, parts, strict=True)]
    else:
        paths = [path for part in parts for path in part.paths]
        found = found_unreadable(paths, _look(len(paths), bad_images))
        kept = [_kept(part, part.paths, found) for part in parts]
    broken = {path.relative_to(root).as_posix(): reason for path, reason in found.items()}
    if broken and not bad_images.to_be_found:
        raise cannot_read(root, broken)
    return kept, broken or dict(known)


def _look(number: int, bad_images: BadImages) -> Callable[[Path], object]:
    """What tells whether a file can be read: the more, the less it may cost."""
    if bad_images.to_be_found:
        return require_decodable
    return extent if number <= MOST_HEADS else require_content


def _kept(part: Part, paths: Sequence[Path], left_out: Collection[Path]) -> Part:
    kept = [place for place, path in enumerate(paths) if path not in left_out]
    return part if len(kept) == len(part) else part.take(torch.tensor(kept, dtype=torch.int64))


def _decode(files: ImageFiles) -> tuple[ImageTensors, dict[Path, str]]:
    """The images, and why those that cannot be read are missing in them."""
    images = torch.empty((len(files), 3, files.image_size, files.image_size), dtype=torch.uint8)

    def decode(place: int) -> str | None:
        try:
            images[place] = central_crop(files.paths[place], files.image_size)
        except BadImage as error:
            return error.reason
        return None

    reasons = zip(files.paths, for_all(range(len(files)), decode), strict=True)
    return ImageTensors(images, files.labels), {path: found for path, found in reasons if found is not None}
