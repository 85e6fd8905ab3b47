"""The modules of a local model as rows: what each holds, what it passes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from infopro.local import LocalModel
from infopro.memory.measure import measure_saved_bytes
from infopro.memory.step import StepMemory
from infopro.types import StageSummary

__all__ = ["predicted_stages", "summarize_stages"]


def summarize_stages(local: LocalModel, images: Any, targets: Tensor) -> tuple[StageSummary, ...]:
    """One row per module; bytes are those saved for the backward pass of this batch."""
    return _rows(local, measure_saved_bytes(local, images, targets).per_module)


def predicted_stages(local: LocalModel, step: StepMemory, *, batch_size: int) -> tuple[StageSummary, ...]:
    """One row per module of a step that was tracked; operations are those of one image's forward pass."""
    if not step.part_flops:  # a live network
        return _rows(local, step.saved)
    flops, head_flops = (
        [number // batch_size for number in numbers] for numbers in (step.part_flops, step.head_flops)
    )
    return _rows(local, step.saved, flops=flops, head_flops=head_flops)


def _rows(
    local: LocalModel, saved: Sequence[int], *, flops: Sequence[int] = (), head_flops: Sequence[int] = ()
) -> tuple[StageSummary, ...]:
    outputs: tuple[int, ...] = (local.task.out_features,)
    if local.task.dense:
        outputs = (*outputs, *local.stages[0].context.image_shape[1:])
    shapes = [*local.split.boundary_shapes, outputs]
    return tuple(
        StageSummary(
            index=index,
            blocks=local.split.blocks[index],
            parameters=_count(stage.part),
            head_parameters=_count(stage.objective),
            saved_bytes=saved[index],
            feature_shape=shapes[index],
            flops=flops[index] if flops else None,
            head_flops=head_flops[index] if head_flops else None,
        )
        for index, stage in enumerate(local.stages)
    )


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
