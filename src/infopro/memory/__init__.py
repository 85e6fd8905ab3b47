"""What a training step keeps in memory: predicted without a GPU, measured, and how cuts divide it."""

from infopro.memory.budget import Answer, DoesNotFit, choose_for_budget, format_bytes, parse_bytes
from infopro.memory.choose import CutChooser, choose_cuts
from infopro.memory.measure import Measurement, SavedBytes, measure, measure_saved_bytes, saved_storages
from infopro.memory.plan import PRECISIONS, Plan, PlanRow, plan
from infopro.memory.planner import Planner
from infopro.memory.segments import checkpoint_segments
from infopro.memory.stages import predicted_stages, summarize_stages
from infopro.memory.step import StepMemory

__all__ = [
    "PRECISIONS",
    "Answer",
    "CutChooser",
    "DoesNotFit",
    "Measurement",
    "Plan",
    "PlanRow",
    "Planner",
    "SavedBytes",
    "StepMemory",
    "checkpoint_segments",
    "choose_cuts",
    "choose_for_budget",
    "format_bytes",
    "measure",
    "measure_saved_bytes",
    "parse_bytes",
    "plan",
    "predicted_stages",
    "saved_storages",
    "summarize_stages",
]
