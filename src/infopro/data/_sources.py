"""Files of a folder or members of a zip archive, by the same names."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

from infopro.data._messages import one_line, quoted
from infopro.errors import BadData, BadImage

__all__ = ["SUFFIXES", "Source", "is_hidden", "walked"]

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
        return sorted(name for name in self._names(folder) if not is_hidden(name))

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
        return [path.relative_to(self.root).as_posix() for path in walked(self.root / folder)]

    def _member(self, archive: zipfile.ZipFile, name: str) -> bytes:
        try:
            return archive.read(name)
        except Exception as error:  # zipfile, zlib and lzma each raise their own
            where = quoted(self.root / name)
            what = f"cannot read the archive ({one_line(error)})"
            remedy = "copy or download it anew"
            raise BadImage(what, got=where, remedy=remedy, files={name: one_line(error)}) from error


def walked(folder: Path) -> Iterator[Path]:
    """All files below a folder, without hidden ones; links are followed, but for those to a folder above.

    Errors:
        BadData: a folder that cannot be listed, rather than files that silently are not there.
    """
    above: dict[Path, frozenset[tuple[int, int]]] = {folder: _ancestors(folder)}
    while above:
        place, ancestors = above.popitem()
        try:
            status = place.stat()
            with os.scandir(place) as entries:
                found = [entry for entry in entries if not _is_hidden_name(entry.name)]
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BadData(f"cannot list the folder ({one_line(error)})", got=quoted(place)) from error
        itself = (status.st_dev, status.st_ino)
        if itself in ancestors:
            continue
        for entry in found:
            if _is_folder(entry):
                above[Path(entry.path)] = ancestors | {itself}
            else:
                yield Path(entry.path)


def _ancestors(folder: Path) -> frozenset[tuple[int, int]]:
    try:
        found = [parent.stat() for parent in folder.resolve().parents]
    except (OSError, RuntimeError):  # said where it is listed
        return frozenset()
    return frozenset((status.st_dev, status.st_ino) for status in found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        what = f"cannot read the zip archive ({one_line(error)})"
        raise BadData(what, got=quoted(path), remedy="copy or download it anew") from error


def is_hidden(name: str) -> bool:
    """Whether a name, or that of a folder in it, begins with a dot, or is what macOS adds to archives."""
    return any(_is_hidden_name(part) for part in PurePosixPath(name).parts)


def _is_hidden_name(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))
