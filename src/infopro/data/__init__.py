"""Data sets of labelled images, by name or path, and their batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from infopro._plugins import public_modules
from infopro.data._bad_images import BadImages
from infopro.data._labels import labels_of
from infopro.data._mask_reader import decode_once
from infopro.data._seeds import counter_generator
from infopro.data._types import (
    VOID,
    Augmentation,
    ImageData,
    ImageFiles,
    Images,
    ImageTensors,
    JointAugmentation,
    MaskFiles,
    MaskTensors,
)
from infopro.data.augment import augment, normalize
from infopro.data.batches import batch_sizes, batches, num_batches, share
from infopro.data.camvid import camvid
from infopro.data.cityscapes import cityscapes
from infopro.data.cropping import crop
from infopro.data.digits_on_photos import digits_on_photos, render_digits
from infopro.data.digits_on_photos_masks import digits_on_photos_masks
from infopro.data.image_folder import class_folders, image_folder
from infopro.data.joint_augment import augment_pair
from infopro.data.mask_folder import is_mask_folder, mask_files, mask_folder
from infopro.data.npz_file import npz_file
from infopro.data.resizing import resize, square_side
from infopro.data.subsets import held_out_images, hold_out, limit
from infopro.data.voc import voc
from infopro.errors import BadData, UnknownName

__all__ = [
    "VOID",
    "Augmentation",
    "ImageData",
    "ImageFiles",
    "ImageTensors",
    "Images",
    "JointAugmentation",
    "MaskFiles",
    "MaskTensors",
    "augment",
    "augment_pair",
    "batch_sizes",
    "batches",
    "camvid",
    "cityscapes",
    "counter_generator",
    "crop",
    "digits_on_photos",
    "digits_on_photos_masks",
    "held_out_images",
    "hold_out",
    "image_folder",
    "labels_of",
    "limit",
    "list_data",
    "load",
    "mask_folder",
    "normalize",
    "npz_file",
    "num_batches",
    "render_digits",
    "resize",
    "share",
    "voc",
]

DATA_FOLDER = Path("data")  # where downloaded sets are looked for unless told otherwise


def list_data() -> list[str]:
    """The names of the known data sets; besides them `load` takes the path of a folder or an .npz file."""
    return sorted(_sets())


def load(
    name: Path | str,
    *,
    data_dir: Path | str | None = None,
    download: bool = False,
    image_size: int | tuple[int, int] | None = None,
    seed: int = 0,
    on_bad_image: Literal["error", "skip"] = "error",
    skipped: Mapping[str, str] | None = None,
) -> ImageData:
    """The data set of this name, or the one in this .npz file, folder of images and masks or of class
    folders.

    `data_dir` (default `data`) holds the sets that have to be downloaded, `download` fetches one that is
    missing. `image_size`, in pixels, makes square images, or of (rows, columns); without it a set keeps its
    own size, and class folders get 224. Sets with masks whose images have one size then, and fit in 2 GiB,
    are decoded once. `seed` decides what is random in making the set: the rendering of digits on photos, the
    test part of a folder without one. `on_bad_image` "skip" decodes every image of a folder once and leaves
    out those that cannot be read: `ImageData.skipped`. Given as `skipped`, those are left out again without
    another look.

    Errors:
        UnknownName: neither a known set nor a path. BadData: a path that does not exist or cannot be read.
        MissingPackage: the set needs an optional package.

    Example:
        >>> load("digits-on-photos").image_shape
        (3, 32, 32)
    """
    name, sets = str(name), _sets()
    bad_images = BadImages(skip=on_bad_image == "skip", known=skipped)
    if name in sets:
        folder = DATA_FOLDER if data_dir is None else Path(data_dir)
        data = sets[name](data_dir=folder, download=download, seed=seed, bad_images=bad_images)
    else:
        path = _existing_path(name, sets)
        if _is_class_folder(path):
            side = 224 if image_size is None else square_side(image_size)
            return class_folders(path, image_size=side, seed=seed, bad_images=bad_images)
        if not path.is_dir():
            bad_images.require_unread(name)
        data = mask_files(path, seed=seed, bad_images=bad_images) if path.is_dir() else npz_file(path)
    return decode_once(data if image_size is None else resize(data, image_size=image_size))


def _is_class_folder(path: Path) -> bool:
    try:
        return path.is_dir() and not is_mask_folder(path)
    except OSError as error:
        raise BadData(f"cannot list the folder ({error.strerror})", got=repr(str(path))) from error


def _existing_path(name: str, sets: dict[str, Callable[..., ImageData]]) -> Path:
    path = Path(name)
    if path.is_dir() or (path.is_file() and path.suffix.lower() == ".npz"):
        return path
    if path.exists():
        raise BadData("a data set is a folder or an .npz file", got=repr(name))
    if path.suffix.lower() == ".npz" or len(path.parts) > 1 or name.startswith((".", "~")):
        raise BadData("there is no such file or folder", got=repr(name))
    raise UnknownName(
        "data set",
        name,
        sets,
        remedy="or name a folder of class folders, of images and masks, or an .npz file",
    )


def _sets() -> dict[str, Callable[..., ImageData]]:
    sets: dict[str, Callable[..., ImageData]] = {}
    for module in public_modules(__name__, list(__path__)).values():
        sets.update(getattr(module, "SETS", {}))
    return sets
