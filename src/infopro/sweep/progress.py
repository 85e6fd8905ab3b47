"""What a sweep's terminal shows: one bar over all epochs, one line for every run that ends."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from infopro.sweep.jobs import Job

__all__ = ["SweepProgress", "last_words"]

_LOOK_SECONDS = 1.0


class SweepProgress:
    """Give `on_look` and `on_end` to `run_jobs`; use as a context manager.

    Args:
        epochs: how many each training job has, by its name; any other job counts as one.
        folders: where the training jobs write their logs.
    """

    def __init__(self, console: Console, *, jobs: Sequence[Job], epochs: Mapping[str, int], folders: Path):
        self._console, self._jobs, self._folders = console, jobs, folders
        self._weight = {job.name: epochs.get(job.name, 1) for job in jobs}
        self._trains = epochs.keys()
        self._done, self._looked, self._number = 0, 0.0, 0
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=sum(self._weight.values()))

    def __enter__(self) -> SweepProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def on_look(self, running: Sequence[Job]) -> None:
        """Move the bar."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        under_way = sum(self._epochs_of(job) for job in running)
        names = ", ".join(job.name for job in running[:3]) + (", ..." if len(running) > 3 else "")
        self._bar.update(self._task, completed=self._done + under_way, description=names)

    def on_end(self, job: Job, status: int, seconds: float) -> None:
        """Say how a job ended: what it printed last."""
        self._done += self._weight[job.name]
        self._number += 1
        said = last_words(job.output)
        ending = said if status == 0 else f"failed ({status}): {said}; all of it: {job.output}"
        self._console.print(
            f"{self._number}/{len(self._jobs)}  {job.name}  {seconds:.0f} s  {ending}",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )

    def _epochs_of(self, job: Job) -> int:
        log = self._folders / job.name / "log.jsonl"
        if job.name not in self._trains or not log.is_file():
            return 0
        return log.read_bytes().count(b"\n")


def last_words(output: Path) -> str:
    """The last line that says something: a result, or what went wrong."""
    lines = [line.strip() for line in output.read_text(errors="replace").splitlines()]
    telling = [line for line in lines if line and not line.startswith(("wrote ", "table in "))]
    return telling[-1] if telling else "it printed nothing"
