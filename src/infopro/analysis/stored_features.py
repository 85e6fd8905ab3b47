"""Room for the features of all blocks: in memory, or in a temporary file where they do not fit."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from infopro.errors import BadConfiguration

__all__ = ["Shapes", "feature_room"]

Shapes = Mapping[str, tuple[int, ...]]  # block -> [C, h, w]

_BYTES = 4  # of a float32
_SPARE = 1.02  # what a file system needs besides


@contextmanager
def feature_room(
    shapes: Shapes, *, num_images: int, memory: int
) -> Iterator[Callable[[int], dict[str, Tensor]]]:
    """While open, a function number of images -> {block: float32 [images, C, h, w]}, to be called in parts.

    Up to `memory` bytes for `num_images` images in all are held in memory. More lie in files that are mapped
    into memory, in the folder for temporary files (TMPDIR): the same numbers, read when they are needed.

    Raises:
        BadConfiguration: neither memory nor disk has room; the message names the bytes.

    Example:
        >>> with feature_room({"stem": (2, 4, 4)}, num_images=10, memory=0) as allocate:
        ...     {name: list(maps.shape) for name, maps in allocate(6).items()}
        {'stem': [6, 2, 4, 4]}
    """
    needed = _BYTES * num_images * sum(math.prod(shape) for shape in shapes.values())
    if needed <= memory:
        yield lambda number: {name: torch.empty((number, *shape)) for name, shape in shapes.items()}
        return
    with tempfile.TemporaryDirectory(prefix="infopro-features-", ignore_cleanup_errors=True) as folder:
        _check_disk(Path(folder), needed, memory)
        files = (Path(folder) / str(number) for number in range(1_000_000))
        yield lambda number: {name: _mapped(next(files), (number, *shape)) for name, shape in shapes.items()}


def _mapped(file: Path, shape: tuple[int, ...]) -> Tensor:
    size = math.prod(shape)
    return torch.from_file(str(file), shared=True, size=size, dtype=torch.float32).view(shape)


def _check_disk(folder: Path, needed: int, memory: int) -> None:
    """A mapped file that outgrows its disk ends the process without a word."""
    free = shutil.disk_usage(folder).free
    if free < needed * _SPARE:
        raise BadConfiguration(
            "the features of the probes' images fit neither in memory nor on the disk",
            got=f"{needed / 2**30:.1f} GiB, for {free / 2**30:.1f} GiB free in {folder.parent}",
            allowed=f"{memory / 2**30:.1f} GiB in memory",
            remedy="take fewer images or blocks, raise the memory, or set TMPDIR to a larger disk",
        )
