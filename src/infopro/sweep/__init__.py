"""Many runs from one command: methods x K x seeds, over free devices or cores, resumable."""

from infopro.sweep.cells import END_TO_END, Cell, list_methods, plan_cells
from infopro.sweep.jobs import Job, Slot, free_slots, run_jobs

__all__ = ["END_TO_END", "Cell", "Job", "Slot", "free_slots", "list_methods", "plan_cells", "run_jobs"]
