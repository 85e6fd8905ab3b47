"""Whether a run comes out again: what is needed to repeat it, what differs here, and what came of it."""

from infopro.reproduction.comparing import Comparison, compare_runs
from infopro.reproduction.differences import differences, unrecorded
from infopro.reproduction.repeating import Repetition, repetition_of

__all__ = ["Comparison", "Repetition", "compare_runs", "differences", "repetition_of", "unrecorded"]
