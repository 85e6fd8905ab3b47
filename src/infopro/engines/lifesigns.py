"""What every process is doing, told to the others twice a second: so that a hang can be named."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist
from torch._C._distributed_c10d import Store

from infopro.engines.meeting import first_line
from infopro.errors import StageLost

__all__ = ["LifeSigns"]

_EVERY = 0.5  # seconds
_CONNECT = timedelta(seconds=20)
_SILENT = 5.0  # seconds without a sign after which a process is taken for stopped
_ENDED = "its end"
_WAITING = (_ENDED, "receive", "back-pressure", "reduce")


class LifeSigns:
    """A thread that writes this process's present occupation into the store that all processes share.

    Args:
        store: shared by all processes.
        replicas: processes per module; they are numbered module by module.
    """

    def __init__(self, store: Store, rank: int, replicas: int):
        self._store = store
        self._rank = rank
        self._replicas = replicas
        self._doing: tuple[str, int | None, float] = ("start", None, time.time())
        self._over = threading.Event()

    def doing(self, what: str, step: int | None = None) -> None:
        """Note what this process begins; costs nothing."""
        self._doing = (what, step, time.time())

    @contextmanager
    def beating(self, *, timeout: timedelta) -> Iterator[LifeSigns]:
        """While open, the others can see that this process lives.

        Args:
            timeout: of the store's other requests.

        Raises:
            StageLost: the process that holds the store has ended already.
        """
        thread = threading.Thread(target=self._beat, args=(self._connected_anew(timeout),), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join(timeout=2 * _EVERY)

    def end(self) -> None:
        """Let the others know that this process ends by itself."""
        self.doing(_ENDED)
        self._tell(self._store)

    def explain_gone(self, peer: int) -> str | None:
        """One line about a process that has closed its connection; None where it ended by itself."""
        sign = self._read(peer)
        if sign is not None and sign[1] == _ENDED:
            return None
        return f"{self._name(peer)} is gone" + ("" if sign is None else f"; its last: {_place(sign)}")

    def explain_lost(self) -> str | None:
        """As `explain_gone`, where a collective does not say who: who gives no sign when it is due."""
        time.sleep(3 * _EVERY)
        others = [rank for rank in range(dist.get_world_size()) if rank != self._rank]
        return self.explain_gone(max(others, key=self.silence))

    def explain(self, waited_for: int) -> str:
        """One line about a hang: which module stands still, as far as the signs tell."""
        found = {rank: self._read(rank) for rank in range(dist.get_world_size()) if rank != self._rank}
        silent = [rank for rank, sign in found.items() if _is_silent(sign)]
        working = {rank: sign for rank, sign in found.items() if sign is not None and sign[1] not in _WAITING}
        busy = sorted(working, key=lambda rank: working[rank][3])  # the longest at the same work first
        culprit = next((group[0] for group in (silent, busy) if group), waited_for)
        return f"{self._name(culprit)} {self._state(found.get(culprit), culprit in silent)}"

    def silence(self, rank: int) -> float:
        """Seconds since the last sign of a process; infinite where it has given none."""
        sign = self._read(rank)
        return float("inf") if sign is None else time.time() - sign[0]

    def _connected_anew(self, timeout: timedelta) -> Store:
        """A connection of its own: the main thread's may be blocked in a wait."""
        self._store.set_timeout(min(timeout, _CONNECT))  # torch tries for up to three times as long
        try:
            return self._store.clone()
        except (RuntimeError, dist.DistError) as error:
            raise StageLost(self.explain_gone(0) or "process 0 has ended", got=first_line(error)) from error
        finally:
            self._store.set_timeout(timeout)

    def _beat(self, store: Store) -> None:
        while not self._over.wait(_EVERY):
            if not self._tell(store):
                return

    def _tell(self, store: Store) -> bool:
        what, step, since = self._doing
        try:
            store.set(f"life/{self._rank}", json.dumps([time.time(), what, step, since]))
        except (RuntimeError, dist.DistError):
            return False  # the store's process is gone: this one learns it from its next wait
        return True

    def _read(self, rank: int) -> tuple[float, str, int | None, float] | None:
        try:
            if not self._store.check([f"life/{rank}"]):
                return None
            told, what, step, since = json.loads(self._store.get(f"life/{rank}"))
            return told, what, step, since
        except (RuntimeError, dist.DistError):
            return None

    def _name(self, rank: int) -> str:
        replica = f", replica {rank % self._replicas + 1}" if self._replicas > 1 else ""
        return f"module {rank // self._replicas + 1} (process {rank}{replica})"

    def _state(self, sign: tuple[float, str, int | None, float] | None, silent: bool) -> str:
        if sign is None:
            return "has given no sign of life"
        told, _, _, since = sign
        place = _place(sign)
        if silent:
            return f"has given no sign of life for {time.time() - told:.0f} s; its last: {place}"
        return f"has been in {place} for {time.time() - since:.0f} s"


def _place(sign: tuple[float, str, int | None, float]) -> str:
    _, what, step, _ = sign
    return what if step is None else f"{what} of step {step + 1}"


def _is_silent(sign: tuple[float, str, int | None, float] | None) -> bool:
    return sign is None or (sign[1] != _ENDED and time.time() - sign[0] > _SILENT)
