"""Random streams by counters: what a module draws depends on its place, not on what ran before it."""

from __future__ import annotations

import torch

__all__ = ["seed_stage", "stage_seed", "step_seed"]


def step_seed(seed: int, epoch: int, step: int) -> int:
    """The seed of one training step; torch takes 64 bits.

    Example:
        >>> step_seed(0, 1, 5) == step_seed(0, 1, 6)
        False
    """
    return ((seed * 1_000_003 + epoch) * 1_000_003 + step) % 2**63


def stage_seed(seed: int, stage: int, replica: int = 0) -> int:
    """The seed of one module in a step: dropout then draws the same in one process and in K.

    The first module of the first replica has the step's own seed, so that K = 1 is ordinary back-propagation.

    Args:
        seed: of the step.
        stage: 0-based.
        replica: 0-based number of the process that holds another part of the batch.

    Example:
        >>> stage_seed(7, 0), stage_seed(7, 1) == stage_seed(7, 2)
        (7, False)
    """
    return (seed + stage * 0x9E3779B97F4A7C15 + replica * 0xC2B2AE3D27D4EB4F) % 2**63


def seed_stage(seed: int | None, stage: int, replica: int = 0) -> None:
    """Give torch's random stream, on every device, to a module that is about to run; None leaves it alone."""
    if seed is not None:
        torch.manual_seed(stage_seed(seed, stage, replica))
