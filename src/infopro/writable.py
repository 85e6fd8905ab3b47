"""Whether a place can be written to: found out before the work whose results are to lie there."""

from __future__ import annotations

import tempfile
from pathlib import Path

from infopro.errors import BadConfiguration

__all__ = ["require_writable"]


def require_writable(folder: Path, *, remedy: str = "pass another --output") -> None:
    """Refuse a folder that cannot be written to, or cannot be made; nothing is made or left behind.

    A file is made in the folder, or in the nearest one above it that exists, and is gone at once: permission
    bits say little, of a file system that is mounted read-only, of a full one, or to root.

    Raises:
        BadConfiguration: no file can be made there; a file stands where a folder would be.

    Example:
        >>> require_writable(Path("runs") / "not-there-yet")
        >>> require_writable(Path(__file__) / "run")
        Traceback (most recent call last):
        infopro.errors.BadConfiguration: a file stands where the folder would be: got ...
    """
    nearest = folder
    try:
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        if not nearest.is_dir():
            raise BadConfiguration("a file stands where the folder would be", got=nearest, remedy=remedy)
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        reason = f"{error.strerror or error} in {nearest.absolute()}"
        raise BadConfiguration(f"{folder} cannot be written", got=reason, remedy=remedy) from error
