"""One run at a time in a folder: a lock that the operating system drops with the process that holds it."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from infopro.errors import BadRun

__all__ = ["LOCK_FILE", "locked", "refuse_locked"]

LOCK_FILE = ".lock"


@contextmanager
def locked(folder: Path, *, what: str = "run") -> Iterator[None]:
    """Hold the folder's lock while open; the folder is made, the lock's file stays, empty.

    A killed process keeps no lock, and the processes that it forked hold none (POSIX record locks, `lockf`).
    They reach over hosts where the file system's do, as NFS 4 does; where it has none, and on Windows,
    nothing is locked. A second lock by the same process is not refused.

    Raises:
        BadRun: another process holds it; the message names its host, number and start. The folder cannot be
            made or written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder)):
        ...     sorted(json.loads((Path(folder) / LOCK_FILE).read_text()))
        ['host', 'process', 'started']
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise BadRun(
            f"the {what} folder cannot be written", got=error, remedy="pass another --output"
        ) from error
    try:
        if not _take(descriptor):
            raise _taken(folder, what, os.read(descriptor, 1000))
        _write_holder(descriptor)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)  # and with it the lock


def refuse_locked(folder: Path, *, what: str = "run") -> None:
    """Fail where another process holds the folder's lock; nothing is made or kept.

    Raises:
        BadRun: as `locked`.
    """
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR)
    except OSError:
        return  # no such folder, no lock, or one that cannot be written: `locked` says so
    try:
        if not _take(descriptor):
            raise _taken(folder, what, os.read(descriptor, 1000))
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True  # a file system without locks
    return True


def _write_holder(descriptor: int) -> None:
    holder = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(descriptor, 0)
    os.write(descriptor, (json.dumps(holder) + "\n").encode())


def _taken(folder: Path, what: str, content: bytes) -> BadRun:
    try:
        holder = json.loads(content)
        who = f"process {holder['process']} on {holder['host']} since {holder['started']}"
    except (ValueError, TypeError, KeyError):
        who = "a process that has just begun"
    return BadRun(
        f"another process is writing to the {what} folder {folder}",
        got=who,
        remedy="wait for it, stop it, or pass another --output",
    )
