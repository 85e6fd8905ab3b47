"""Files of a folder or members of a zip archive, by the same names."""

from __future__ import annotations

import os
import zipfile
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

from infopro.data._messages import one_line, quoted
from infopro.errors import BadData

__all__ = ["SUFFIXES", "Source"]

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


class Source:
    """What lies in a folder or a zip archive; to be opened anew by every process that reads it.

    A process that inherits an open archive would share, and so move, the others' place in the file.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._archive = None if root.is_dir() else _opened(root)

    def files(self, folder: str) -> list[str]:
        """The names of all files in this folder and below, relative to the root, without hidden ones."""
        return sorted(name for name in self._names(folder) if not _is_hidden(name))

    def holds(self, folder: str) -> bool:
        """Whether there is such a folder."""
        if self._archive is None:
            return (self.root / folder).is_dir()
        return any(name.startswith(f"{folder}/") for name in self._archive.namelist())

    def content(self, name: str) -> IO[bytes] | None:
        """The bytes of a member of the archive; None for a file, which can be opened by its path.

        Errors:
            BadData: the archive lacks it, or is damaged or encrypted there.
        """
        return None if self._archive is None else BytesIO(self._member(self._archive, name))

    def text(self, name: str) -> str | None:
        """What a text file holds; None where there is none."""
        if self._archive is not None:
            known = name in self._archive.namelist()
            return self._member(self._archive, name).decode("utf-8", "replace") if known else None
        path = self.root / name
        try:
            return path.read_text("utf-8", "replace") if path.is_file() else None
        except OSError as error:
            raise BadData(f"cannot read the file ({one_line(error)})", got=quoted(path)) from error

    def _names(self, folder: str) -> list[str]:
        if self._archive is not None:
            members = self._archive.namelist()
            return [name for name in members if name.startswith(f"{folder}/") and not name.endswith("/")]
        found = []
        for place, _, names in os.walk(self.root / folder):
            found += [Path(place, name).relative_to(self.root).as_posix() for name in names]
        return found

    def _member(self, archive: zipfile.ZipFile, name: str) -> bytes:
        try:
            return archive.read(name)
        except Exception as error:  # zipfile, zlib and lzma each raise their own
            where = quoted(self.root / name)
            what = f"cannot read the archive ({one_line(error)})"
            raise BadData(what, got=where, remedy="copy or download it anew") from error


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        what = f"cannot read the zip archive ({one_line(error)})"
        raise BadData(what, got=quoted(path), remedy="copy or download it anew") from error


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)
