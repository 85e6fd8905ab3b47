"""From a model or a run to numbers and images; drawing is the report's."""

from infopro.analysis._types import (
    Analysis,
    BlockInformation,
    DecodedImages,
    ModuleGradient,
    ProbeResults,
    References,
    Similarity,
)
from infopro.analysis.blocks import blocks_of, modules_of_blocks
from infopro.analysis.comparison_settings import ComparisonSettings
from infopro.analysis.files import has_analysis, read_analysis, refuse_existing_analysis, write_analysis
from infopro.analysis.gradients import angle_degrees, module_gradients
from infopro.analysis.information import entropy, input_information, input_scores
from infopro.analysis.network import QUANTITIES, analyze
from infopro.analysis.probe_settings import QUICK, ProbeSettings
from infopro.analysis.probes import ESTIMATES, probe_blocks
from infopro.analysis.reconstructions import (
    Reconstructions,
    frozen_features,
    own_reconstructions,
    probe_reconstructions,
)
from infopro.analysis.similarity import compare_blocks, linear_cka
from infopro.analysis.tables import gradient_table, information_table

__all__ = [
    "ESTIMATES",
    "QUANTITIES",
    "QUICK",
    "Analysis",
    "BlockInformation",
    "ComparisonSettings",
    "DecodedImages",
    "ModuleGradient",
    "ProbeResults",
    "ProbeSettings",
    "Reconstructions",
    "References",
    "Similarity",
    "analyze",
    "angle_degrees",
    "blocks_of",
    "compare_blocks",
    "entropy",
    "frozen_features",
    "gradient_table",
    "has_analysis",
    "information_table",
    "input_information",
    "input_scores",
    "linear_cka",
    "module_gradients",
    "modules_of_blocks",
    "own_reconstructions",
    "probe_blocks",
    "probe_reconstructions",
    "read_analysis",
    "refuse_existing_analysis",
    "write_analysis",
]
