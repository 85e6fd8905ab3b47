"""A bounded store of past batches, from which a module trains when nothing new has come.

Decoupled greedy learning with a replay buffer (Belilovsky, Eickenberg, Oyallon, arXiv 2106.06401).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Drawn", "ReplayBuffer"]

Item = TypeVar("Item")


@dataclass(frozen=True)
class Drawn(Generic[Item]):
    """What was read, and how old it is."""

    item: Item
    uses: int  # how often it has been read, this time included
    staleness: int  # updates that its maker has made since, as far as is known here


class ReplayBuffer(Generic[Item]):
    """Holds the latest `capacity` items; one thread puts, another draws.

    Drawn is the item that was read least often, of equals the latest one; the oldest makes room.

    Args:
        capacity: items.
        most_uses: readings after which an item is not read again; None: no limit.

    Example:
        >>> buffer = ReplayBuffer(capacity=2)
        >>> for update in (1, 2, 3):
        ...     buffer.put(f"batch {update}", update)
        >>> [buffer.draw(timeout=1.0).item for _ in range(3)], buffer.overwritten_unread
        (['batch 3', 'batch 2', 'batch 3'], 1)
    """

    def __init__(self, *, capacity: int, most_uses: int | None = None):
        self._capacity = capacity
        self._most_uses = most_uses
        self._items: OrderedDict[int, tuple[Item, int]] = OrderedDict()  # by the maker's update
        self._uses: dict[int, int] = {}
        self._serial = 0
        self._newest = 0
        self._failure: BaseException | None = None
        self._complete = False
        self._changed = threading.Condition()
        self.overwritten_unread = 0

    def put(self, item: Item, update: int) -> None:
        """Store an item that its maker made after `update` updates of its own."""
        with self._changed:
            self._newest = max(self._newest, update)
            self._items[self._serial] = item, update
            self._uses[self._serial] = 0
            self._serial += 1
            while len(self._items) > self._capacity:
                oldest, _ = self._items.popitem(last=False)
                self.overwritten_unread += not self._uses.pop(oldest)
            self._changed.notify_all()

    def finish(self) -> None:
        """Nothing will be put any more; what is there is read on."""
        with self._changed:
            self._complete = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Something is lost: whoever draws from now on, or waits, gets `error`."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def draw(self, *, timeout: float) -> Drawn[Item]:
        """Read an item; waits only where none may be read.

        Raises:
            TimeoutError: nothing came in `timeout` seconds. EOFError: nothing is left, and nothing will come.
            What `fail` was given.
        """
        with self._changed:
            if not self._changed.wait_for(self._ready, timeout):
                raise TimeoutError(f"no batch in {timeout:.0f} s")
            if self._failure is not None:
                raise self._failure
            if not self._readable():
                raise EOFError("no batch is left")
            chosen = min(self._readable(), key=lambda serial: (self._uses[serial], -serial))
            self._uses[chosen] += 1
            item, update = self._items[chosen]
            return Drawn(item, self._uses[chosen], self._newest - update)

    def _ready(self) -> bool:
        return bool(self._readable()) or self._complete or self._failure is not None

    def _readable(self) -> list[int]:
        most = self._most_uses
        return [serial for serial in self._items if most is None or self._uses[serial] < most]
