"""One measurement of `pipeline.py` as data, and the processes that make it.

Nothing here imports torch: on Linux a process inherits the resident high-water mark of the one that starts
it, so the starter stays small.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Job", "JobFailed", "run"]

WORKER = Path(__file__).with_name("pipeline_worker.py")
GRACE = 10.0  # seconds that the others have after one process has failed
POLL = 0.2  # seconds


class JobFailed(RuntimeError):
    """A measurement that gave no numbers; its text is one line."""


@dataclass(frozen=True)
class Job:
    """What a worker is told; `kind` is a key of `pipeline_worker.KINDS`."""

    kind: str
    model: str
    batch_size: int
    processes: int = 1
    objective: str = "greedy"
    cuts: tuple[str, ...] = ()
    num_modules: int = 1  # of a search for cuts
    schedule: str = ""
    microbatches: int = 1
    queue: int = 2
    warmup: int = 0
    steps: int = 1
    cooldown: int = 0  # steps behind the timed ones, in which every process is still busy
    reference: str = ""  # file with the weights to compare with


def run(job: Job, *, timeout: float) -> list[dict[str, Any]]:
    """What each process of a job found, by rank.

    Raises:
        JobFailed: a process failed, or nothing was heard for `timeout` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="infopro-pipeline-") as name:
        folder, port = Path(name), _free_port()
        started = [_start(job, rank, port, folder) for rank in range(job.processes)]
        try:
            on_time = _wait(started, timeout)
        finally:
            for process in started:
                if process.poll() is None:
                    process.kill()
                process.wait()
        results = [_read(folder, rank) for rank in range(job.processes)]
        failed = [result for result in results if "error" in result]
        if failed:
            raise JobFailed(min(failed, key=lambda result: result["at"])["error"])
        if not on_time:
            raise JobFailed(f"no result within {timeout:.0f} s")
        return results


def _start(job: Job, rank: int, port: int, folder: Path) -> subprocess.Popen[bytes]:
    world = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": job.processes,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": 1,
        "MKL_NUM_THREADS": 1,
    }
    environment = {**os.environ, **{name: str(value) for name, value in world.items()}}
    command = [sys.executable, str(WORKER), json.dumps(asdict(job)), str(folder)]
    with (folder / f"{rank}.err").open("wb") as errors:
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)


def _wait(started: list[subprocess.Popen[bytes]], timeout: float) -> bool:
    """Whether all ended by themselves in time; those of a failed job have `GRACE` seconds more."""
    deadline, failed = time.monotonic() + timeout, False
    while any(process.poll() is None for process in started):
        if not failed and any(process.poll() for process in started):
            failed, deadline = True, time.monotonic() + GRACE
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def _read(folder: Path, rank: int) -> dict[str, Any]:
    file = folder / f"{rank}.json"
    if file.exists():
        result: dict[str, Any] = json.loads(file.read_text())
        return result
    lines = (folder / f"{rank}.err").read_text(errors="replace").strip().splitlines()
    last = lines[-1] if lines else "without a word"
    return {"error": f"process {rank} ended early: {last}"[:200], "at": float("inf")}


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
