"""SIGTERM as the end of a command, by an exception: what is half-written is removed on the way out."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Terminated", "ended_by_sigterm"]


class Terminated(KeyboardInterrupt):
    """SIGTERM came; all that clears up behind a Ctrl-C does so here, too."""


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """While open, SIGTERM raises `Terminated`, if it would end the process otherwise.

    A program that listens to SIGTERM by itself goes on to do so, as a thread has to leave it alone.

    Example:
        >>> import os
        >>> try:
        ...     with ended_by_sigterm():
        ...         os.kill(os.getpid(), signal.SIGTERM)
        ... except Terminated:
        ...     print("terminated")
        terminated
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    raise Terminated
