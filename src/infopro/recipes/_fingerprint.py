"""Short hashes that tell whether two runs, or two processes, have the same source and the same data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from infopro.data import ImageData, Images, ImageTensors, MaskFiles, MaskTensors

__all__ = ["data_hash", "short_hash", "source_hash"]


def source_hash() -> str:
    """Of every file of this package."""
    folder = Path(__file__).parents[1]
    return short_hash(*(file.read_bytes() for file in sorted(folder.rglob("*.py"))))


def data_hash(data: ImageData) -> str:
    """Of all pixels and labels that are held as tensors; of the names and labels of what stays in files."""
    return short_hash(_content(data.train), _content(data.test))


def short_hash(*contents: bytes) -> str:
    """Twelve hexadecimal digits.

    Example:
        >>> short_hash(b"a", b"b") == short_hash(b"ab")
        True
    """
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()[:12]


def _content(images: Images) -> bytes:
    if isinstance(images, ImageTensors):
        pixels = images.images.cpu().contiguous()
        return images.labels.cpu().numpy().tobytes() + pixels.numpy().tobytes()
    if isinstance(images, MaskTensors):
        return images.masks.cpu().numpy().tobytes() + images.images.cpu().contiguous().numpy().tobytes()
    if isinstance(images, MaskFiles):
        return _bytes([*images.image_files, *images.mask_files])
    return images.labels.numpy().tobytes() + _bytes([path.name for path in images.paths])


def _bytes(names: Sequence[str]) -> bytes:
    return "\n".join(names).encode(errors="surrogateescape")  # a file's name may be no text
