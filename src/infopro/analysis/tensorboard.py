"""An analysis as TensorBoard scalars: a curve over depth for every quantity."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from infopro.analysis._types import Analysis, BlockInformation
from infopro.analysis.information import input_information, input_scores

__all__ = ["log_analysis"]


def log_analysis(folder: Path, analysis: Analysis) -> bool:
    """Write an analysis beside the run's own events, in `tensorboard/analysis`; a former one is replaced.

    The step of a point is the depth of its block, of gradients the module; the value is the mean over probe
    seeds or batches. False where the tensorboard package is missing: nothing is written then.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return False
    target = folder / "tensorboard" / "analysis"
    shutil.rmtree(target, ignore_errors=True)
    writer = SummaryWriter(str(target))
    for tag, value, step in _points(analysis):
        writer.add_scalar(f"analysis/{tag}", value, step)
    writer.close()
    return True


def _points(analysis: Analysis) -> Iterator[tuple[str, float, int]]:
    for block in analysis.blocks:
        for tag, values in _estimates(analysis, block):
            if values:
                yield tag, fmean(values), block.depth
    for gradient in analysis.gradients:
        yield "gradient_angle", fmean(gradient.angle_degrees), gradient.module


def _estimates(analysis: Analysis, block: BlockInformation) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Under the names of `BlockInformation`."""
    yield "linear_error", block.linear_error
    yield "input_score", input_scores(block)
    yield "input_information", input_information(block, analysis.references)
    for name in ("task_information", "task_error", "nuisance_information"):
        for key, values in getattr(block, name).items():
            yield f"{name}/{key}", values
