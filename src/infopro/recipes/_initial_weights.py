"""The weights of another run that a network begins with, whatever modules and processes that run had."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from infopro.recipes._fingerprint import short_hash
from infopro.training import RunFolder

__all__ = ["InitialWeights", "find_initial_weights"]


@dataclass(frozen=True)
class InitialWeights:
    """Where a network's first weights are: a line of the run's record."""

    checkpoint: str
    hash: str  # of its state.json, which has those of all its files


def find_initial_weights(source: str) -> InitialWeights:
    """The checkpoint that `RunConfig.initial_weights` means.

    Args:
        source: a run's folder, whose last checkpoint is meant, or a folder in its `checkpoints`.

    Raises:
        BadRun: no such run, or no checkpoint in it.
    """
    path = Path(source).resolve()
    checkpoint = path if (path / "state.json").is_file() else RunFolder.open(path).last_checkpoint()
    return InitialWeights(str(checkpoint), short_hash((checkpoint / "state.json").read_bytes()))
