"""Locally supervised learning: any PyTorch model in K gradient-isolated modules, each with its own loss."""

import importlib
from types import ModuleType

from infopro import errors, models, objectives, split, tasks
from infopro.assembly import localize
from infopro.check import IsolationReport, ParityReport, isolation_check, parity_check
from infopro.local import LocalModel, LocalStage
from infopro.objectives import list_objectives
from infopro.reference import reference_backward
from infopro.types import Split, StepOutput

__all__ = [
    "IsolationReport",
    "LocalModel",
    "LocalStage",
    "ParityReport",
    "Split",
    "StepOutput",
    "errors",
    "isolation_check",
    "list_objectives",
    "localize",
    "models",
    "objectives",
    "parity_check",
    "reference_backward",
    "split",
    "tasks",
]

__version__ = "0.1.0"

_LAZY = ("analysis", "data", "demo", "heads", "memory", "recipes", "report", "training")


def __getattr__(name: str) -> ModuleType:
    """The other packages, imported when they are first used: `infopro.recipes.load(...)`."""
    if name in _LAZY:
        return importlib.import_module(f"infopro.{name}")
    raise AttributeError(f"module 'infopro' has no attribute {name!r}")
