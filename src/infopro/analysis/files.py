"""An analysis on the disk: a folder `analysis` in the run's, complete or not there at all."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infopro.analysis._plain import from_plain, to_plain
from infopro.analysis._types import Analysis, DecodedImages
from infopro.errors import BadRun

__all__ = ["has_analysis", "read_analysis", "refuse_existing_analysis", "write_analysis"]

_NUMBERS, _IMAGES = "analysis.json", "reconstructions.npz"
_FORMAT = 1


def has_analysis(folder: Path) -> bool:
    """Whether a run's folder has an analysis in it."""
    return (folder / "analysis").exists()


def refuse_existing_analysis(folder: Path) -> None:
    """Fail before the work is done, not after.

    Raises:
        BadRun: the run has an analysis already.
    """
    if has_analysis(folder):
        raise BadRun(
            "the run has an analysis already",
            got=folder / "analysis",
            remedy="pass --overwrite to replace it, or --resume to go on with the runs that have none",
        )


def write_analysis(folder: Path, analysis: Analysis, *, overwrite: bool = False) -> list[Path]:
    """Write `analysis/analysis.json` and, where there are images, `analysis/reconstructions.npz`.

    Both are written beside their place and renamed into it together. Numbers come back bit for bit; nan is
    null in the file.

    Args:
        folder: the run's.
        overwrite: replace an analysis that is there.

    Returns:
        The files.

    Raises:
        BadRun: there is one already and `overwrite` is not set, or the folder cannot be written.
    """
    if not overwrite:
        refuse_existing_analysis(folder)
    partial, target = folder / ".analysis.partial", folder / "analysis"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        names = _write_into(partial, analysis)
        _rename(partial, target)
    except OSError as error:
        raise BadRun("the analysis cannot be written", got=error, remedy="free space on the disk") from error
    return [target / name for name in names]


def read_analysis(folder: Path) -> Analysis:
    """What `infopro analyze` left in a run's folder.

    Raises:
        BadRun: there is none, or a file of it is damaged.
    """
    file = folder / "analysis" / _NUMBERS
    if not has_analysis(folder):
        raise BadRun("the run has no analysis", got=folder, remedy=f"run: infopro analyze {folder}")
    try:
        content = json.loads(file.read_text())
        if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
            raise ValueError("another format than this version writes")
        analysis = from_plain(Analysis, {**content, "images": None})
    except (OSError, ValueError) as error:
        raise _damaged(folder, file, error) from error
    return replace(analysis, images=_read_images(folder))


def _write_into(partial: Path, analysis: Analysis) -> list[str]:
    numbers = to_plain(replace(analysis, images=None))
    del numbers["images"]
    text = json.dumps({"format": _FORMAT, **numbers}, indent=1, allow_nan=False)
    (partial / _NUMBERS).write_text(text + "\n")
    if analysis.images is None:
        return [_NUMBERS]
    images = analysis.images
    np.savez_compressed(
        partial / _IMAGES,
        originals=images.originals,
        captions=np.array(images.captions, dtype=np.str_),
        blocks=np.array(images.blocks, dtype=np.str_),
        decoded=images.decoded,
    )
    return [_NUMBERS, _IMAGES]


def _rename(partial: Path, target: Path) -> None:
    if target.exists():
        old = target.with_name(".analysis.removed.partial")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(target, old)
        os.replace(partial, target)
        shutil.rmtree(old)
    else:
        os.replace(partial, target)


def _read_images(folder: Path) -> DecodedImages | None:
    file = folder / "analysis" / _IMAGES
    if not file.exists():
        return None
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            return _decoded(dict(content))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(folder, file, error) from error


def _decoded(content: Mapping[str, NDArray[Any]]) -> DecodedImages:
    """The arrays of the file, if they fit each other."""
    images = DecodedImages(
        originals=content["originals"],
        captions=tuple(map(str, content["captions"])),
        blocks=tuple(map(str, content["blocks"])),
        decoded=content["decoded"],
    )
    shape = (len(images.blocks), len(images.captions), *images.originals.shape[1:])
    if images.decoded.shape != shape or images.originals.shape != shape[1:]:
        raise ValueError(f"decoded images {images.decoded.shape} of originals {images.originals.shape}")
    if not images.originals.dtype == images.decoded.dtype == np.dtype(np.uint8):
        raise ValueError("images are not uint8")
    return images


def _damaged(folder: Path, file: Path, error: Exception) -> BadRun:
    return BadRun(
        f"{file} is damaged", got=error, remedy=f"make it anew: infopro analyze {folder} --overwrite"
    )
