"""What a batch, a target, the final loss and the metric are; a new task is one new file."""

from __future__ import annotations

from infopro._plugins import public_modules
from infopro.tasks._base import Task
from infopro.tasks.classification import Classification
from infopro.tasks.segmentation import VOID, HardPixels, Segmentation

__all__ = ["VOID", "Classification", "HardPixels", "Segmentation", "Task", "list_tasks"]


def list_tasks() -> list[str]:
    """Names of the tasks, in order: the names of this package's public files."""
    return list(public_modules(__name__, list(__path__)))
