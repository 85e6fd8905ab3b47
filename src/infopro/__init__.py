"""Locally supervised learning: any PyTorch model in K gradient-isolated modules, each with its own loss."""

import importlib
from types import ModuleType

from infopro import errors, models, objectives, tasks
from infopro.check import IsolationReport, ParityReport, isolation_check, parity_check
from infopro.layout import split
from infopro.local import LocalModel, LocalStage
from infopro.localization import localize
from infopro.memory import plan
from infopro.objectives import list_objectives
from infopro.preflight import preflight
from infopro.reference import reference_backward
from infopro.splitting import blocks
from infopro.types import Split, StepOutput

__all__ = [
    "IsolationReport",
    "LocalModel",
    "LocalStage",
    "ParityReport",
    "Split",
    "StepOutput",
    "blocks",
    "errors",
    "isolation_check",
    "list_objectives",
    "localize",
    "models",
    "objectives",
    "parity_check",
    "plan",
    "preflight",
    "reference_backward",
    "split",
    "tasks",
]

__version__ = "0.1.0"

_LAZY = (
    "analysis",
    "data",
    "demo",
    "engines",
    "heads",
    "memory",
    "recipes",
    "report",
    "splitting",
    "training",
)


def __getattr__(name: str) -> ModuleType:
    """The other packages, imported when they are first used: `infopro.recipes.load(...)`."""
    if name in _LAZY:
        return importlib.import_module(f"infopro.{name}")
    raise AttributeError(f"module 'infopro' has no attribute {name!r}")
