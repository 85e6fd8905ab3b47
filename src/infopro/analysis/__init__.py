"""From a model or a run to numbers and images; drawing is the report's."""

from infopro.analysis.reconstructions import (
    Reconstructions,
    frozen_features,
    own_reconstructions,
    probe_reconstructions,
)

__all__ = ["Reconstructions", "frozen_features", "own_reconstructions", "probe_reconstructions"]
