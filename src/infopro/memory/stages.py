"""The modules of a local model as rows: what each holds, what it passes on."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from infopro.local import LocalModel
from infopro.memory.measure import measure_saved_bytes
from infopro.types import StageSummary

__all__ = ["summarize_stages"]


def summarize_stages(local: LocalModel, images: Any, targets: Tensor) -> tuple[StageSummary, ...]:
    """One row per module; bytes are those saved for the backward pass of this batch."""
    saved = measure_saved_bytes(local, images, targets)
    logits = (local.task.out_features,)
    shapes = [*local.split.boundary_shapes, logits]
    rows = zip(local.stages, local.split.blocks, shapes, saved.per_module, strict=True)
    return tuple(
        StageSummary(
            index=index,
            blocks=blocks,
            parameters=_count(stage.part),
            head_parameters=_count(stage.objective),
            saved_bytes=bytes_saved,
            feature_shape=shape,
        )
        for index, (stage, blocks, shape, bytes_saved) in enumerate(rows)
    )


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
