"""TensorBoard scalars and images under the names that the log and the report use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from infopro.types import EpochRecord

__all__ = ["TensorBoardLog"]

_COLUMNS = 8  # of images that TensorBoard's writer sets side by side


class TensorBoardLog:
    """Writes one point an epoch; without the tensorboard package nothing, and `available` says so."""

    def __init__(self, folder: Path, *, first_epoch: int = 1):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.available = False
            return
        self.available = True
        # purge_step drops the points of epochs that a resumed run repeats
        self._writer = SummaryWriter(str(folder), purge_step=first_epoch)

    def add(self, record: EpochRecord) -> None:
        """Write one epoch."""
        if not self.available:
            return
        scalars = {
            "error/train": record.train_error,
            "error/test": record.test_error,
            "error/best_test": record.best_test_error,
            "loss/test": record.test_loss,
            "learning_rate": record.learning_rate,
            "images_per_second": record.images_per_second,
        }
        for index, losses in enumerate(record.losses):
            scalars |= {f"module_{index + 1}/{name}": value for name, value in losses.items()}
        scores = {name: value for name, value in record.extra.items() if isinstance(value, float)}
        scalars |= {f"score/{name}": value for name, value in scores.items()}
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, record.epoch)
        self._writer.flush()

    def add_images(self, epoch: int, originals: Tensor, decoded: Mapping[str, Tensor]) -> None:
        """Write, by tag, the originals with what was made of them below; both [N, C, H, W] in [0, 1]."""
        if not self.available:
            return
        for tag, images in decoded.items():
            rows = [originals[:_COLUMNS], images[:_COLUMNS]]
            self._writer.add_images(tag, torch.cat([row.float().cpu() for row in rows]), epoch)
        self._writer.flush()

    def close(self) -> None:
        """Finish the event file."""
        if self.available:
            self._writer.close()
