"""When the call began: loaded before torch, whose loading counts against the budget."""

from __future__ import annotations

import time

__all__ = ["STARTED"]

STARTED = time.time()  # seconds since the epoch, as workers' clocks have it
