"""Files that were not there before, and of which nothing stays where their writing is interrupted."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

__all__ = ["write_new", "write_picture"]


def write_new(path: Path, content: bytes) -> None:
    """Write a new file, in one piece.

    Errors:
        FileExistsError: nothing is overwritten.
    """
    file = path.open("xb")
    try:
        with file as stream:
            stream.write(content)
    except BaseException:  # a full disk, Ctrl-C, SIGTERM
        path.unlink()
        raise


def write_picture(path: Path, picture: Any) -> None:
    """A Pillow image as a PNG; as `write_new`."""
    content = io.BytesIO()
    picture.save(content, format="PNG")
    write_new(path, content.getvalue())
