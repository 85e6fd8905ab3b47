"""Errors that a user can mend: each says what is wrong, what was got, what is allowed and what to do next."""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Iterable, Mapping

__all__ = [
    "AlreadyTold",
    "BadConfiguration",
    "BadData",
    "BadImage",
    "BadInput",
    "BadRun",
    "BadSplit",
    "InfoProError",
    "MissingPackage",
    "NotReplayable",
    "NotSplittable",
    "NotYetSupported",
    "StageLost",
    "UnknownName",
    "as_told_once",
]

_SECONDS_TO_TELL = 20.0  # to import torch, on a busy machine


class InfoProError(ValueError):
    """A mistake that the caller can mend; the command line prints it as one line and exits with status 2.

    `exit_status` is what the command line ends with.

    Example:
        >>> str(InfoProError("batch size is not positive", got=0, allowed="1 or more", remedy="pass 64"))
        'batch size is not positive: got 0; allowed: 1 or more; pass 64'
    """

    exit_status = 2

    def __init__(
        self, what: str, *, got: object = None, allowed: str | None = None, remedy: str | None = None
    ):
        text = what if got is None else f"{what}: got {got}"
        parts = [text]
        if allowed is not None:
            parts.append(f"allowed: {allowed}")
        if remedy is not None:
            parts.append(remedy)
        super().__init__(_printable("; ".join(parts)))


def _printable(text: str) -> str:
    """One line that no terminal obeys, whatever names a file gave."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\n\t" else repr(c)[1:-1] for c in text)


class AlreadyTold(InfoProError):
    """What another process of the same run has printed: this one ends without a word."""

    def __init__(self, what: str, *, exit_status: int = 2):
        super().__init__(what)
        self.exit_status = exit_status


def as_told_once(error: InfoProError) -> InfoProError:
    """What a process raises that all others raise, too: the error in the first, `AlreadyTold` in the others.

    The others wait before they end: torchrun ends all processes with the first one that fails, and that would
    be before it has been said why.
    """
    if os.environ.get("RANK", "0") == "0":
        return error
    time.sleep(_SECONDS_TO_TELL)
    return AlreadyTold(str(error))


class StageLost(InfoProError):
    """Another process of the run is gone, or hangs; the message names its module."""

    exit_status = 1


class UnknownName(InfoProError):
    """A name that no model, data set, objective, head or recipe has; the message lists the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, remedy: str | None = None):
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
        allowed = (
            "did you mean " + ", ".join(near) + "?" if near else ", ".join(names[:12]) or "none installed"
        )
        if near:
            super().__init__(
                f"unknown {kind}", got=repr(name), remedy="; ".join(filter(None, [allowed, remedy]))
            )
        else:
            super().__init__(f"unknown {kind}", got=repr(name), allowed=allowed, remedy=remedy)


class BadSplit(InfoProError):
    """Cuts that do not exist, are out of order, repeat or outnumber the network's blocks: choose others."""


class NotSplittable(InfoProError):
    """A network whose forward cannot be recorded soundly; the message says why and what to change."""


class NotReplayable(NotSplittable):
    """A forward that cannot be recorded soundly, but may be run live, in one process; see `localize`."""


class NotYetSupported(InfoProError):
    """A sound request that this version cannot serve."""


class BadInput(InfoProError):
    """A tensor of the wrong shape, type or range: an example input, a batch of images, its labels."""


class BadData(InfoProError):
    """A data file or folder that cannot be read; the message names it."""


class BadImage(BadData):
    """Image files that cannot be read: repair them, leave them out, or have them skipped.

    `files` says of each why not.
    """

    def __init__(
        self,
        what: str,
        *,
        got: object = None,
        allowed: str | None = None,
        remedy: str | None = None,
        files: Mapping[str, str] | None = None,
    ):
        super().__init__(what, got=got, allowed=allowed, remedy=remedy)
        self.files = dict(files or {})

    @property
    def reason(self) -> str:
        """Why the first of the files cannot be read."""
        return next(iter(self.files.values()), str(self))


class BadRun(InfoProError):
    """A run folder that exists already, lacks a checkpoint, or belongs to another configuration."""


class BadConfiguration(InfoProError):
    """Options that contradict each other or lie outside their range."""


class MissingPackage(InfoProError, ImportError):
    """An optional package that is missing or does not import; the message has the command that repairs it."""

    def __init__(self, package: str, *, extra: str, purpose: str, reason: str | None = None):
        state = f"does not import ({reason})" if reason else "is not installed"
        super().__init__(
            f"{purpose} needs {package}, which {state}", remedy=f'run: pip install "infopro[{extra}]"'
        )
