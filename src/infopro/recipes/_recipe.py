"""What a recipe is."""

from __future__ import annotations

from dataclasses import dataclass

from infopro.recipes._config import RunConfig

__all__ = ["Published", "Recipe"]


@dataclass(frozen=True, kw_only=True)
class Published:
    """The numbers that the paper prints; it does not say whether of the last or of the best epoch."""

    test_error: float  # %, mean of 5 trials (ImageNet: one, top-1)
    standard_deviation: float | None  # %, over the trials; None where the paper prints none
    table: str  # where the paper prints it
    memory_gb: float | None = None  # per GPU, by the paper's own definition, not nvidia-smi's
    top5_error: float | None = None  # %, ImageNet


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A complete, named training configuration, such as one cell of a published table."""

    name: str
    config: RunConfig
    published: Published | None  # None where no number is published
    source: str  # where the configuration comes from
    notes: tuple[str, ...] = ()  # what in it is not published, or differs from it
