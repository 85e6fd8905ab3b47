"""Data sets of labelled images, by name or path, and their batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from infopro._plugins import public_modules
from infopro.data._seeds import counter_generator
from infopro.data._types import Augmentation, ImageData, ImageFiles, Images, ImageTensors
from infopro.data.augment import augment, normalize
from infopro.data.batches import batch_sizes, batches, num_batches, share
from infopro.data.digits_on_photos import digits_on_photos, render_digits
from infopro.data.image_folder import image_folder
from infopro.data.npz_file import npz_file
from infopro.data.resizing import resize
from infopro.data.subsets import held_out_images, hold_out, limit
from infopro.errors import BadData, UnknownName

__all__ = [
    "Augmentation",
    "ImageData",
    "ImageFiles",
    "ImageTensors",
    "Images",
    "augment",
    "batch_sizes",
    "batches",
    "counter_generator",
    "digits_on_photos",
    "held_out_images",
    "hold_out",
    "image_folder",
    "limit",
    "list_data",
    "load",
    "normalize",
    "npz_file",
    "num_batches",
    "render_digits",
    "resize",
    "share",
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
    image_size: int | None = None,
    seed: int = 0,
) -> ImageData:
    """The data set of this name, or the one in this folder of class folders or .npz file.

    `data_dir` (default `data`) holds the sets that have to be downloaded, `download` fetches one that is
    missing. `image_size`, in pixels, makes square images; without it a set keeps its own size, and folders
    get 224. `seed` decides what is random in making the set: the rendering of digits on photos, the test
    part of a folder without one.

    Errors:
        UnknownName: neither a known set nor a path. BadData: a path that does not exist or cannot be read.
        MissingPackage: the set needs an optional package.

    Example:
        >>> load("digits-on-photos").image_shape
        (3, 32, 32)
    """
    name, sets = str(name), _sets()
    if name in sets:
        folder = DATA_FOLDER if data_dir is None else Path(data_dir)
        data = sets[name](data_dir=folder, download=download, seed=seed)
    else:
        path = _existing_path(name, sets)
        if path.is_dir():
            return image_folder(path, image_size=224 if image_size is None else image_size, seed=seed)
        data = npz_file(path)
    return data if image_size is None else resize(data, image_size=image_size)


def _existing_path(name: str, sets: dict[str, Callable[..., ImageData]]) -> Path:
    path = Path(name)
    if path.is_dir() or (path.is_file() and path.suffix.lower() == ".npz"):
        return path
    if path.exists():
        raise BadData("a data set is a folder or an .npz file", got=repr(name))
    if path.suffix.lower() == ".npz" or len(path.parts) > 1 or name.startswith((".", "~")):
        raise BadData("there is no such file or folder", got=repr(name))
    raise UnknownName("data set", name, sets, remedy="or name a folder of class folders or an .npz file")


def _sets() -> dict[str, Callable[..., ImageData]]:
    sets: dict[str, Callable[..., ImageData]] = {}
    for module in public_modules(__name__, list(__path__)).values():
        sets.update(getattr(module, "SETS", {}))
    return sets
