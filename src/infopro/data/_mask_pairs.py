"""Which mask belongs to which image, and the data set that such pairs make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from infopro.data._mask_reader import surveyed
from infopro.data._mask_types import JointAugmentation, MaskFiles
from infopro.data._messages import listed, quoted
from infopro.data._sources import SUFFIXES, Source
from infopro.data._types import ImageData
from infopro.errors import BadData

__all__ = ["SCENES", "default_colours", "found_pairs", "joined", "mask_data"]

MASK_SUFFIXES = SUFFIXES - {".jpg", ".jpeg"}  # a JPEG does not keep class numbers
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCENES = JointAugmentation(scale=(0.5, 2.0), flip=True, colour=True)

Pairs = tuple[tuple[str, ...], tuple[str, ...]]  # files of the images, and of their masks
Colours = tuple[tuple[int, int, int], ...]


def found_pairs(
    source: Source, images: str, masks: str, *, names: Iterable[str] | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The files of two folders that have the same names apart from their endings, sorted.

    `names`, without endings, says which are wanted and in which order.

    Errors:
        BadData: an image without mask, a mask without image, two files of one name, empty folders.
    """
    found = (_by_name(source, images, SUFFIXES), _by_name(source, masks, MASK_SUFFIXES))
    where = f"{quoted(source.root / images)} and {quoted(source.root / masks)}"
    if not found[1]:
        lossy = " (a JPEG does not keep class numbers)" if _by_name(source, masks, SUFFIXES) else ""
        what = f"there are no {'masks' if found[0] else 'images with masks'}{lossy}"
        raise BadData(what, got=where, allowed=f"masks of {', '.join(sorted(MASK_SUFFIXES))}")
    return joined(*found, where=where, names=names)


def joined(
    images: Mapping[str, str], masks: Mapping[str, str], *, where: str, names: Iterable[str] | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """As `found_pairs`, of files that are known by their names."""
    wanted = sorted(images.keys() | masks.keys()) if names is None else list(names)
    problems = [
        f"{len(missing)} without {kind}: {listed([repr(name) for name in missing])}"
        for kind, files in (("image", images), ("mask", masks))
        if (missing := [name for name in wanted if name not in files])
    ]
    if problems:
        raise BadData(f"images and masks of {where} do not pair up", got="; ".join(problems))
    return tuple(images[name] for name in wanted), tuple(masks[name] for name in wanted)


def _by_name(source: Source, folder: str, suffixes: set[str]) -> dict[str, str]:
    """From a name without folder and ending to the file."""
    found: dict[str, str] = {}
    for file in source.files(folder):
        path = PurePosixPath(file)
        if path.suffix.lower() in suffixes:
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                got = f"{quoted(source.root / found[name])} and {quoted(source.root / file)}"
                raise BadData("two files have the same name apart from their endings", got=got)
            found[name] = file
    return found


def mask_data(
    name: str,
    root: Path,
    *,
    train: Pairs,
    test: Pairs,
    classes: Mapping[int, int],
    class_names: Sequence[str],
    colours: Colours,
    skipped: Mapping[str, str],
) -> ImageData:
    """A data set of files, prepared as is usual: ImageNet's normalisation, scale 0.5 to 2, flip, colour.

    Errors:
        BadData: an empty part, a file that cannot be read, masks of another size than their images.
    """
    parts, extents = zip(
        *surveyed([MaskFiles(root, images, masks, classes) for images, masks in (train, test)]), strict=True
    )
    return ImageData(
        name=name,
        train=parts[0],
        test=parts[1],
        num_classes=len(class_names),
        class_names=tuple(class_names),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        image_shape=(3, *extents[0]),
        augmentation=SCENES,
        colours=colours,
        skipped=skipped,
    )


def default_colours(number: int) -> Colours:
    """The first colours of Pascal VOC's list, which goes on for ever: bits of the class number, spread.

    Example:
        >>> default_colours(3)
        ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    """

    def channel(index: int, first: int) -> int:
        return sum(((index >> (3 * bit + first)) & 1) << (7 - bit) for bit in range(3))

    return tuple((channel(index, 0), channel(index, 1), channel(index, 2)) for index in range(number))
