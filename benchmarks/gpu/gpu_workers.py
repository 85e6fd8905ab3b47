"""Processes that do jobs one after another on one device, and tell when they are done."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from gpu_jobs import Job
from gpu_measuring import measure_step, throughput
from gpu_parent import end_with_parent
from gpu_safetensors import provide
from gpu_training import Data, described, set_precision, train

from infopro import recipes
from infopro.errors import InfoProError
from infopro.stopping import StopRequest

__all__ = ["Answer", "Settings", "Worker", "Workers"]

ROOT = Path(__file__).parents[2]
_CONTEXT = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
PATIENCE_SECONDS = 5.0  # for all workers to end; a compilation does not listen
MEETING_SECONDS = 600.0  # the longest that one run waits for the others to warm up


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all jobs of a call have in common."""

    device: str
    mosaics: Path | None
    data_dir: Path | None
    runs: Path  # unfinished runs
    output: Path
    deadline: float  # of `time.time()`: what is not done by then is stopped
    side_by_side: int
    commit: str | None
    throughput_seconds: float


@dataclass(frozen=True)
class Answer:
    """What became of a job."""

    job: Job
    row: dict[str, Any] | None  # None: it was stopped


class Worker:
    """A process that does one job at a time."""

    def __init__(self, settings: Settings, barrier: Barrier | None = None):
        self._settings, self._barrier = settings, barrier
        self.job: Job | None = None
        self._start()

    def _start(self) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self.process: BaseProcess = _CONTEXT.Process(
            target=_serve, args=(theirs, self._settings, self._barrier), daemon=True
        )
        self.process.start()
        theirs.close()

    def begin(self, job: Job) -> None:
        """Hand a job over."""
        if not self.process.is_alive():
            self._start()
        self.job = job
        with suppress(OSError):  # it died just now, which is its answer
            self.connection.send(job)

    def answer(self) -> Answer:
        """Take what the process says, once there is something.

        A process in which a job failed is ended, and the next job gets another: a GPU's error may stick.
        """
        job, self.job = self.job, None
        assert job is not None
        try:
            row = self.connection.recv()
        except (EOFError, OSError):  # the latter where it died before it had read the job
            self.end(patience=10.0)
            if time.time() > self._settings.deadline or self.process.exitcode == -signal.SIGTERM:
                return Answer(job, None)
            reason = f"its process ended with status {self.process.exitcode}"
            return Answer(job, {**_failed(job, reason), "side_by_side": self._settings.side_by_side})
        if row is not None and "error" in row:
            self.end(patience=10.0)
        return Answer(job, row)

    def stop(self) -> None:
        """Ask for a checkpoint of the run under way, which is answered like any end."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGTERM)

    def end(self, *, patience: float) -> None:
        """Leave no process behind."""
        self.connection.close()
        self.process.join(patience)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class Workers:
    """Several of them; all are gone when this is left."""

    def __init__(self, settings: Settings, number: int):
        barrier = _CONTEXT.Barrier(max(number, 1))
        self._all = [Worker(settings, barrier) for _ in range(number)]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *details: object) -> None:
        for worker in self._all:
            worker.stop()
        until = time.monotonic() + PATIENCE_SECONDS
        for worker in self._all:
            worker.end(patience=max(until - time.monotonic(), 0.0))

    @property
    def idle(self) -> list[Worker]:
        return [worker for worker in self._all if worker.job is None]

    @property
    def busy(self) -> list[Worker]:
        return [worker for worker in self._all if worker.job is not None]

    def answers(self, *, seconds: float) -> list[Answer]:
        """What came within this time; waits no longer than for the first."""
        ready = wait([worker.connection for worker in self.busy], timeout=seconds)
        return [worker.answer() for worker in self.busy if worker.connection in ready]


def _serve(connection: Connection, settings: Settings, barrier: Barrier | None) -> None:
    """A worker's life: until the other end closes or a signal comes."""
    stop = StopRequest()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C: the parent passes it on
    with stop.listening():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end_with_parent()
        provide()
        device = recipes.choose_device(settings.device)
        data = Data(device, mosaics=settings.mosaics, data_dir=settings.data_dir)
        doing = _Doing(settings, device, data, barrier, stop)
        while not stop():
            if not connection.poll(0.2):
                continue
            try:
                job = connection.recv()
            except EOFError:
                return
            answer = doing.do(job)
            with suppress(OSError):  # nobody waits for it any more
                connection.send(answer)


@dataclass(frozen=True)
class _Doing:
    settings: Settings
    device: torch.device
    data: Data
    barrier: Barrier | None
    wish: StopRequest

    def over(self) -> bool:
        return self.wish() or time.time() > self.settings.deadline

    def do(self, job: Job) -> dict[str, Any] | None:
        """A row, also of a job that fails; None of one that was stopped."""
        started = time.monotonic()
        try:
            set_precision(job.precision)
            found = self._found(job)
        except Exception as error:  # out of memory, a loss that is not finite, data that are not there
            if not isinstance(error, InfoProError):
                traceback.print_exc()
            found = _failed(job, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
        if found is None:
            return None
        same = described(
            job, self.device, side_by_side=self.settings.side_by_side, commit=self.settings.commit
        )
        return {**same, **found, "call_seconds": round(time.monotonic() - started, 2)}

    def _found(self, job: Job) -> dict[str, Any] | None:
        match job.kind:
            case "train":
                runs = self.settings.runs
                return train(job, self.data, device=self.device, runs=runs, stop=self.over)
            case "measure":
                return measure_step(job, device=self.device)
            case "throughput":
                assert self.barrier is not None
                meet, seconds = self._meet, self.settings.throughput_seconds
                try:
                    return throughput(job, self.data, device=self.device, seconds=seconds, meet=meet)
                except Exception:
                    self.barrier.abort()  # nobody waits for a run that will not come
                    raise
            case "script":
                return self._script(job)

    def _meet(self) -> None:
        assert self.barrier is not None
        self.barrier.wait(MEETING_SECONDS)

    def _script(self, job: Job) -> dict[str, Any] | None:
        """A script of this repository; what it writes goes beside the rows."""
        words = [word.format(output=self.settings.output) for word in job.changed["command"]]
        started, left = time.monotonic(), self.settings.deadline - time.time()
        try:
            subprocess.run([sys.executable, *words], cwd=ROOT, check=True, timeout=max(left, 1.0))
        except subprocess.TimeoutExpired:
            return None
        return {"seconds": round(time.monotonic() - started, 2)}


def _failed(job: Job, reason: str) -> dict[str, Any]:
    return {**{n: v for n, v in asdict(job).items() if n != "estimate"}, "error": reason}
