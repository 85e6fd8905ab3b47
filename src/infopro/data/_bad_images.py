"""Image files that cannot be read: found before anything is trained, and told or left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infopro.data._mask_reader import MaskReader
from infopro.data._mask_types import MaskFiles
from infopro.data._messages import listed, quoted
from infopro.data._threads import for_all
from infopro.errors import BadConfiguration, BadData, BadImage

__all__ = ["REFUSED", "BadImages", "cannot_read", "found_unreadable", "readable_pairs", "unreadable_of"]

Pairs = tuple[tuple[str, ...], tuple[str, ...]]  # files of the images, and of their masks


@dataclass(frozen=True)
class BadImages:
    """What becomes of image files that cannot be read."""

    skip: bool = False  # left out; otherwise they are an error
    known: Mapping[str, str] | None = None  # what a run left out when it began, and why; None: nobody looked

    @property
    def to_be_found(self) -> bool:
        """Whether every image must be decoded to know which ones are left out."""
        return self.skip and self.known is None

    def require_unread(self, name: str) -> None:
        """For data that have no image files.

        Errors:
            BadConfiguration: images are to be skipped.
        """
        if self.skip:
            what = "on_bad_image is 'skip', which is for folders of images"
            raise BadConfiguration(what, got=name, remedy="leave it out")


REFUSED = BadImages()


def found_unreadable(paths: Sequence[Path], read: Callable[[Path], object]) -> dict[Path, str]:
    """The files that `read` cannot read, and why not."""

    def reason(path: Path) -> str | None:
        try:
            read(path)
        except BadImage as error:
            return error.reason
        return None

    reasons = zip(paths, for_all(paths, reason), strict=True)
    return {path: found for path, found in reasons if found is not None}


def cannot_read(root: Path, files: Mapping[str, str]) -> BadImage:
    """One error of all these files below `root`."""
    if len(files) == 1:
        ((name, reason),) = files.items()
        what, got = f"cannot read the image ({reason})", quoted(root / name)
        return BadImage(what, got=got, remedy="repair or remove it", files=files)
    got = listed([f"{quoted(root / name)} ({files[name]})" for name in sorted(files)])
    return BadImage(f"cannot read {len(files)} images", got=got, remedy="repair or remove them", files=files)


def readable_pairs(
    root: Path, parts: Sequence[Pairs], bad_images: BadImages
) -> tuple[list[Pairs], dict[str, str]]:
    """The pairs of both parts that can be read, image and mask, and why others are left out, where they are.

    A mask that does not fit its image, or has a value that is no class, is no reason to leave a pair out.

    Errors:
        BadData: no pair is left.
    """
    if not bad_images.skip:
        return list(parts), {}
    known = bad_images.known
    reasons = unreadable_of(root, parts) if known is None else dict(known)
    kept = [_without(part, reasons) for part in parts]
    for purpose, before, after in zip(("train", "test"), parts, kept, strict=True):
        if before[0] and not after[0]:
            what = f"no image to {purpose} on can be read, with its mask"
            raise BadData(what, got=quoted(root), remedy="repair some of them")
    return kept, reasons


def unreadable_of(root: Path, parts: Sequence[Pairs]) -> dict[str, str]:
    """The images and masks that cannot be read, and why not; all are decoded."""
    images, masks = (tuple(file for part in parts for file in part[kind]) for kind in (0, 1))
    reader = MaskReader(MaskFiles(root, images, masks, classes={}))
    found: dict[str, str] = {}
    for reasons in for_all(range(len(images)), reader.unreadable):
        found.update(reasons)
    return found


def _without(pairs: Pairs, reasons: Mapping[str, str]) -> Pairs:
    kept = [pair for pair in zip(*pairs, strict=True) if not reasons.keys() & set(pair)]
    return tuple(image for image, _ in kept), tuple(mask for _, mask in kept)
