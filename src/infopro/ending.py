"""SIGTERM as the end of a command, by an exception: what is half-written is removed on the way out."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Terminated", "ended_at_once", "ended_by_sigterm", "signal_behind"]


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


@contextmanager
def ended_at_once() -> Iterator[None]:
    """While open, SIGTERM and Ctrl-C end the process where it is: 143 and 130 to a shell.

    For waits inside a library's C++, which no exception reaches, where nothing is half-written. A program
    that listens to them by itself goes on to do so, as a thread has to leave them alone.
    """
    ours = {signal.SIGTERM: _end, signal.SIGINT: signal.default_int_handler}
    main = threading.current_thread() is threading.main_thread()
    taken = [number for number, handler in ours.items() if main and signal.getsignal(number) is handler]
    for number in taken:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, ours[number])


def signal_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C or SIGTERM that was on its way out when an error came in its place.

    Code that it interrupts may be left in a state in which its own clearing up fails.

    Example:
        >>> try:
        ...     try:
        ...         raise Terminated
        ...     finally:
        ...         raise RuntimeError("pop from an empty stack")
        ... except RuntimeError as error:
        ...     signal_behind(error)
        Terminated()
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error


def _end(number: int, frame: FrameType | None) -> None:
    raise Terminated
