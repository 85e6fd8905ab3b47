"""Work on many files at once: Pillow decodes outside the interpreter lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["for_all"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def for_all(items: Iterable[Item], work: Callable[[Item], Result]) -> list[Result]:
    """What `work` gives for each item, in their order."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, items))
