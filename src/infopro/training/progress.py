"""Live progress with the time left; one plain line an epoch where the output is not a terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infopro.types import EpochRecord

__all__ = ["TrainingProgress", "best_so_far", "tested", "trained"]


def tested(record: EpochRecord) -> str:
    """What the network was worth after an epoch; of masks that is the mean intersection over union.

    Example:
        >>> record = EpochRecord(1, 0.1, (), 20.0, 30.0, 1.0, 30.0, 1.0, 1.0, {"mean_iou": 70.0})
        >>> tested(record), best_so_far(record), trained(record)
        ('test mIoU 70.00 %', 70.0, 'train mIoU 80.00 %')
    """
    return _said("test", record.test_error, record)


def trained(record: EpochRecord) -> str:
    """The same of augmented training images, while the network learnt."""
    return _said("train", record.train_error, record)


def best_so_far(record: EpochRecord) -> float:
    """The best epoch's test error, or mean intersection over union, in %."""
    return 100.0 - record.best_test_error if _of_masks(record) else record.best_test_error


def _said(part: str, error: float, record: EpochRecord) -> str:
    return f"{part} mIoU {100 - error:.2f} %" if _of_masks(record) else f"{part} error {error:.2f} %"


def _of_masks(record: EpochRecord) -> bool:
    return "mean_iou" in record.extra


class TrainingProgress:
    """Give `on_step` and `on_epoch` to `train`; use as a context manager."""

    def __init__(
        self, console: Console, *, title: str, epochs: int, steps_per_epoch: int, first_epoch: int = 1
    ):
        self._console, self._title, self._epochs, self._steps = console, title, epochs, steps_per_epoch
        self._last = ""
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
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
        text = tested(record)
        self._progress.update(self._task, last=text)
        losses = " ".join(f"{values['total']:.3f}" for values in record.losses)
        self._console.print(
            f"{self._title}  epoch {record.epoch:>3}/{self._epochs}  "
            f"{text} (best {best_so_far(record):.2f} %)  "
            f"{trained(record)}  module losses {losses}  "
            f"{record.images_per_second:.0f} images/s",
            highlight=False,
            soft_wrap=True,
        )
