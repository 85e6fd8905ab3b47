"""Commands run side by side, one per free device or share of the cores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from infopro.errors import BadConfiguration

__all__ = ["Job", "Slot", "available_cores", "free_slots", "run_jobs"]

PROGRAM = (sys.executable, "-m", "infopro")
_LOOK_SECONDS = 0.2
_PATIENCE_SECONDS = 60.0  # for a checkpoint after SIGTERM


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Where one job runs at a time."""

    device: str  # "cpu", "cuda:0", ...
    threads: int  # of torch in that job


@dataclass(frozen=True, kw_only=True)
class Job:
    """One command of infopro: `arguments` without the device, which its slot gives."""

    name: str
    arguments: tuple[str, ...]
    output: Path  # the file that gets all it prints
    after: str | None = None  # a job that has to succeed first


@dataclass
class _Running:
    job: Job
    slot: Slot
    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)


def available_cores() -> int:
    """Those that this process may use, which a container or a batch system can make fewer."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_slots(*, devices: Sequence[str] | None = None, jobs: int | None = None, wanted: int) -> list[Slot]:
    """As many places as there are devices, or shares of the cores; no more than `wanted`.

    Args:
        devices: their names; None: all GPUs of this machine, or the CPU.
        jobs: side by side; None: one per GPU, one per core of a CPU.

    Raises:
        BadConfiguration: fewer than one job.

    Example:
        >>> free_slots(devices=["cuda:0", "cuda:1"], jobs=4, wanted=3)[2].device
        'cuda:0'
    """
    if jobs is not None and jobs < 1:
        raise BadConfiguration("too few jobs", got=jobs, allowed="1 or more")
    names = list(devices) if devices else [f"cuda:{n}" for n in range(torch.cuda.device_count())] or ["cpu"]
    cores = available_cores()
    number = min(jobs or (cores if names == ["cpu"] else len(names)), max(1, wanted))
    return [Slot(device=names[n % len(names)], threads=max(1, cores // number)) for n in range(number)]


def run_jobs(
    jobs: Sequence[Job],
    slots: Sequence[Slot],
    *,
    stop: Callable[[], bool] = lambda: False,
    on_look: Callable[[Sequence[Job]], object] = lambda running: None,
    on_end: Callable[[Job, int, float], object] = lambda job, status, seconds: None,
) -> dict[str, int]:
    """Run all jobs, in order as far as places allow; the exit status of each that ended, by name.

    A job whose `after` failed or was not run is left out. Asked to stop, it passes SIGTERM on, and waits
    while the jobs leave their checkpoints. No job outlives this function.

    Args:
        on_look: called several times a second with the jobs under way.
        on_end: called with a job, its exit status and its seconds.
    """
    waiting, free = list(jobs), list(slots)
    running: list[_Running] = []
    ended: dict[str, int] = {}
    with _none_left(running):
        while running or (waiting and not stop()):
            while free and waiting and not stop():
                job = _next_ready(waiting, ended, running)
                if job is None:
                    break
                running.append(_start(job, free.pop(0)))
            if not running:
                break  # what is left waits for jobs that failed
            if stop():
                _end(running)
            on_look([one.job for one in running])
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                free.append(one.slot)
                ended[one.job.name] = one.process.returncode
                on_end(one.job, one.process.returncode, time.monotonic() - one.started)
            time.sleep(_LOOK_SECONDS)
    return ended


def _next_ready(waiting: list[Job], ended: dict[str, int], running: Sequence[_Running]) -> Job | None:
    """The first job that may start; those that never will are dropped."""
    known = {job.name for job in waiting} | {one.job.name for one in running}
    for job in list(waiting):
        if job.after is None or ended.get(job.after) == 0 or job.after not in known | ended.keys():
            waiting.remove(job)
            return job
        if job.after in ended:
            waiting.remove(job)
    return None


def _start(job: Job, slot: Slot) -> _Running:
    job.output.parent.mkdir(parents=True, exist_ok=True)
    threads = str(slot.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [*PROGRAM, *job.arguments, f"--device={slot.device}"]
    with job.output.open("ab") as stream:
        # a session of its own: a terminal's Ctrl-C reaches it once, from here
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=environment,
            start_new_session=True,
        )
    return _Running(job, slot, process)


def _end(running: Sequence[_Running]) -> None:
    for one in running:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for one in running:
        try:
            one.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()


@contextmanager
def _none_left(running: Sequence[_Running]) -> Iterator[None]:
    try:
        yield
    finally:
        _end(running)
