"""Live progress with the time left; one plain line an epoch where the output is not a terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infopro.types import EpochRecord

__all__ = ["TrainingProgress"]


class TrainingProgress:
    """Give `on_step` and `on_epoch` to `train`; use as a context manager."""

    def __init__(
        self, console: Console, *, title: str, epochs: int, steps_per_epoch: int, first_epoch: int = 1
    ):
        self._console, self._title, self._epochs, self._steps = console, title, epochs, steps_per_epoch
        self._last = ""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("steps, left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[last]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        done = (first_epoch - 1) * steps_per_epoch
        self._task = self._progress.add_task(title, total=epochs * steps_per_epoch, completed=done, last="")

    def __enter__(self) -> TrainingProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def on_step(self, epoch: int, step: int) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=(epoch - 1) * self._steps + step)

    def on_epoch(self, record: EpochRecord) -> None:
        """Say how the epoch went."""
        text = f"test error {record.test_error:.2f} %"
        self._progress.update(self._task, last=text)
        losses = " ".join(f"{values['total']:.3f}" for values in record.losses)
        self._console.print(
            f"{self._title}  epoch {record.epoch:>3}/{self._epochs}  "
            f"{text} (best {record.best_test_error:.2f} %)  "
            f"train error {record.train_error:.2f} %  module losses {losses}  "
            f"{record.images_per_second:.0f} images/s",
            highlight=False,
            soft_wrap=True,
        )
