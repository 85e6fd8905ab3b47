"""Where the processes that torchrun has started meet: a store in the first of them, or in torchrun itself."""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta

import torch.distributed as dist
from torch._C._distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from infopro.errors import BadConfiguration

__all__ = ["first_line", "shared_store"]

_PAUSE = 0.05  # seconds between two attempts


def shared_store(timeout: timedelta) -> tuple[Store, int, int]:
    """The store, this process's rank and the number of processes.

    Raises:
        BadConfiguration: not started by torchrun; a port that is taken; nobody there.
    """
    missing = [n for n in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if n not in os.environ]
    if missing:
        raise BadConfiguration(
            "modules in parallel need several processes",
            got=f"no {', '.join(missing)} in the environment",
            remedy="start them with: torchrun --nproc-per-node=N -m infopro train ..., N = K for a pipeline",
        )
    try:
        _wait_for_first(timeout.total_seconds())
        found: tuple[Store, int, int] = next(rendezvous("env://", timeout=timeout))
    except (OSError, RuntimeError, dist.DistError, ValueError) as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        taken = "EADDRINUSE" in str(error) or "address already in use" in str(error)
        raise BadConfiguration(
            f"the port {address} is in use" if taken else f"the processes did not meet at {address}",
            got=first_line(error),
            remedy="pass torchrun another --master-port, or --standalone on one machine",
        ) from error
    return found


def first_line(error: BaseException) -> str:
    """Of what torch says: the lines behind it are C++."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def _wait_for_first(seconds: float) -> None:
    """Until somebody listens at the address: torch's own client tries for up to three times its timeout."""
    if int(os.environ["RANK"]) == 0:
        return  # it listens itself
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(place, timeout=max(end - time.monotonic(), _PAUSE)).close()
        except OSError:
            if time.monotonic() > end:
                raise
        else:
            return
        time.sleep(_PAUSE)
