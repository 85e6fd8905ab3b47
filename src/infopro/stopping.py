"""SIGTERM, SIGUSR1 and Ctrl-C as a wish that the training loop grants between two steps."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from infopro.engines import Processes

__all__ = ["StopRequest"]

# SIGUSR1 is what batch systems send before they take a machine away; Windows has none
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
_ONE_WISH = 1.0  # seconds: a terminal sends Ctrl-C to all processes, and torchrun passes it on once more


class StopRequest:
    """True, once a signal has come to this process or to any other of the run.

    Example:
        >>> import os
        >>> stop = StopRequest()
        >>> with stop.listening():
        ...     os.kill(os.getpid(), signal.SIGTERM)
        ...     stop(), stop.exit_status
        (True, 143)
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._since = 0.0
        self._listener = 0
        self._processes: Processes | None = None

    def share(self, processes: Processes | None) -> None:
        """Let a signal to one process stop all of them."""
        self._processes = processes

    def __call__(self) -> bool:
        """Asked between two batches."""
        if self._received is None and self._processes is not None:
            return self._processes.is_told("stop")
        return self._received is not None

    @property
    def exit_status(self) -> int:
        """As a shell reports a process that the signal ended: 130 (Ctrl-C), 143 (SIGTERM), 138 (SIGUSR1)."""
        return 128 + (self._received or signal.SIGTERM)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While open, the first signal asks to stop; a Ctrl-C more than a second later ends the process."""
        self._listener = os.getpid()
        before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._listener:
            return  # forked since, to read images: its parent gets the signal as well
        first, self._since = self._received is None, self._since or time.monotonic()
        if number == signal.SIGINT and time.monotonic() - self._since > _ONE_WISH:
            raise KeyboardInterrupt
        self._received = self._received or number
        if first and self._processes is not None:
            self._processes.tell("stop")
