"""Locally supervised learning: any PyTorch model in K gradient-isolated modules, each with its own loss."""

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
