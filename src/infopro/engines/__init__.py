"""How the K modules of one step are run: in turn, in processes of their own, on parts of every batch."""

from infopro.engines._base import Engine, Phase, Work
from infopro.engines.decoupled import Decoupled
from infopro.engines.one_process import OneProcess
from infopro.engines.pipeline import Pipeline
from infopro.engines.processes import Processes, joined
from infopro.engines.stage_steps import StageSteps
from infopro.engines.streaming import Streaming

__all__ = [
    "Decoupled",
    "Engine",
    "OneProcess",
    "Phase",
    "Pipeline",
    "Processes",
    "StageSteps",
    "Streaming",
    "Work",
    "joined",
]
