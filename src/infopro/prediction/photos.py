"""Photos on disk: which there are, what they show, and what their predictions are called."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from infopro.data._decode import central_crop, whole_image
from infopro.data._messages import quoted
from infopro.data._sources import SUFFIXES, walked
from infopro.errors import BadData

__all__ = ["find_photos", "grey", "output_names", "read_cropped", "read_photo", "resized"]

LUMA = (0.299, 0.587, 0.114)  # of red, green, blue in grey: ITU-R 601, as Pillow and torchvision have it


def find_photos(paths: Iterable[Path]) -> list[Path]:
    """Files as they are named, and of folders the image files at any depth, by name; each once.

    A file that is named may be of any format that is read, AVIF and JPEG 2000 included. In folders, names
    decide: the suffixes of image folders; hidden files are passed over.

    Errors:
        BadData: a path that does not exist, a folder without images.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if path.is_dir():
            files = _files_in(path)
        elif path.exists():
            files = [path]
        else:
            raise BadData("there is no such image or folder", got=quoted(path))
        for file in files:
            found.setdefault(os.path.abspath(file), file)
    return list(found.values())


def output_names(photos: Sequence[Path]) -> list[str]:
    """A name for each photo's results: its file's, without suffix; longer where several would be alike.

    The suffix stands behind where several photos of a folder differ by it only, and the nearest folders in
    front where it takes them. Upper and lower case are alike: some file systems do not tell them apart.

    Example:
        >>> output_names([Path("a/1.png"), Path("b/1.png"), Path("b/2.png"), Path("b/2.jpg")])
        ['a-1', 'b-1', '2-png', '2-jpg']
    """
    groups: dict[str, list[int]] = {}
    for place, photo in enumerate(photos):
        groups.setdefault(photo.stem.casefold(), []).append(place)
    names = [photo.stem for photo in photos]
    for group in groups.values():
        if len(group) > 1:
            longer = _told_apart([Path(os.path.abspath(photos[place])) for place in group])
            for place, name in zip(group, longer, strict=True):
                names[place] = name
    return _numbered(names)


def read_photo(path: Path) -> NDArray[np.uint8]:
    """A photo in RGB at its own size, [H, W, 3]; a tag that turns it is not obeyed, as in training.

    Errors:
        BadData: not an image, truncated or otherwise broken; the message names the file.
    """
    return whole_image(path).permute(1, 2, 0).numpy()


def read_cropped(path: Path, size: int) -> NDArray[np.uint8]:
    """A photo as image folders give test images: RGB, [size, size, 3], the middle of it.

    Errors:
        BadData: as `read_photo`.
    """
    return central_crop(path, size).permute(1, 2, 0).numpy()


def resized(photo: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """[H, W, C] -> [rows, columns, C]: bilinear with antialiasing, as sets held as tensors are resized.

    Example:
        >>> resized(np.full((9, 6, 3), 7, np.uint8), (4, 5)).shape
        (4, 5, 3)
    """
    pixels = torch.from_numpy(photo).permute(2, 0, 1)[None].float()
    smaller = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    return smaller[0].round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def grey(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB [H, W, 3] -> [H, W, 1], for networks of one channel.

    Example:
        >>> grey(np.array([[[255, 255, 255], [255, 0, 0]]], np.uint8)).tolist()
        [[[255], [76]]]
    """
    luma: NDArray[np.float64] = photo @ np.array(LUMA)
    return luma.round().astype(np.uint8)[..., None]


def _files_in(folder: Path) -> list[Path]:
    named = (f for f in walked(folder) if f.suffix.lower() in SUFFIXES)
    images = sorted(f for f in named if f.is_file() or f.is_symlink())  # opening a pipe would wait for ever
    if not images:
        raise BadData("there are no images in the folder", got=quoted(folder))
    return images


def _told_apart(places: Sequence[Path]) -> list[str]:
    """Names for whole paths of one stem."""
    beside = Counter(str(place.with_suffix("")).casefold() for place in places)
    ends = [
        place.stem if beside[str(place.with_suffix("")).casefold()] == 1 else place.name.replace(".", "-")
        for place in places
    ]
    folders = [place.parent.parts[1:] for place in places]  # without the root
    names = ends
    for depth in range(min(1, len(set(folders)) - 1), max(map(len, folders)) + 1):
        names = [
            "-".join([*parts[max(0, len(parts) - depth) :], end])
            for parts, end in zip(folders, ends, strict=True)
        ]
        if len({name.casefold() for name in names}) == len(names):
            break
    return names


def _numbered(names: Sequence[str]) -> list[str]:
    """What is still alike gets numbers."""
    taken: set[str] = set()
    found = []
    for name in names:
        candidate, number = name, 2
        while candidate.casefold() in taken:
            candidate, number = f"{name}-{number}", number + 1
        taken.add(candidate.casefold())
        found.append(candidate)
    return found
