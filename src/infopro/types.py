"""The frozen dataclasses that flow between the parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

__all__ = ["Batch", "EpochRecord", "Split", "StageContext", "StageSummary", "StepOutput"]


@dataclass(frozen=True)
class Batch:
    """What an objective may look at besides its module's features."""

    images: Tensor  # [N, C, H, W]: the network's first input, normalised as the task says
    targets: Tensor  # class labels [N], or whatever the task's loss takes


@dataclass(frozen=True)
class StageContext:
    """Where a stage stands in the network: all that an objective knows when it builds its heads."""

    index: int  # 0-based
    num_stages: int
    feature_shape: tuple[int, ...]  # of the tensor that crosses the cut, without the batch dimension
    image_shape: tuple[int, ...]  # of the network's input, without the batch dimension

    @property
    def is_last(self) -> bool:
        return self.index == self.num_stages - 1


@dataclass(frozen=True)
class StepOutput:
    """The result of one local step: gradients are in `.grad`, these are the values to log."""

    losses: tuple[
        Mapping[str, Tensor], ...
    ]  # per module, detached scalars; "total" is what was differentiated
    logits: Tensor  # the network's own output, detached


@dataclass(frozen=True)
class Split:
    """Where a network is cut: data, printable, stored with a run."""

    cuts: tuple[str, ...]  # the last block of every module but the final one
    blocks: tuple[tuple[str, ...], ...]  # the blocks of each module, in order of execution
    boundary_shapes: tuple[tuple[int, ...], ...]  # per cut, without the batch dimension
    carried: tuple[int, ...]  # per cut, how many tensors cross it besides the boundary
    notes: tuple[str, ...] = ()  # what a user should know: shared parameters, in-place writes, constants
    recomputed: tuple[str, ...] = ()  # the blocks that are not kept: up to each, all since the one before
    live: bool = False  # the network's own forward runs, in one process, instead of recorded parts

    @property
    def num_modules(self) -> int:
        return len(self.cuts) + 1


@dataclass(frozen=True)
class StageSummary:
    """One box of the drawn split."""

    index: int
    blocks: tuple[str, ...]
    parameters: int  # of the network's own blocks
    head_parameters: int  # of the auxiliary nets, which fall away after training
    saved_bytes: int  # saved for the backward pass of this module, heads included
    feature_shape: tuple[int, ...]  # of what the module passes on, without the batch dimension
    flops: int | None = None  # of the module's forward pass for one image, heads left out
    head_flops: int | None = None  # of the forward pass of its heads and loss for one image


@dataclass(frozen=True)
class EpochRecord:
    """One line of a run's log."""

    epoch: int  # 1-based
    learning_rate: float
    losses: tuple[Mapping[str, float], ...]  # per module, mean over the epoch
    train_error: float  # %, of the network's own output on augmented training images
    test_error: float  # %, after this epoch
    test_loss: float
    best_test_error: float  # %, lowest so far; shown beside the last one, never instead of it
    seconds: float  # training time of this epoch
    images_per_second: float
    extra: Mapping[str, Any] = field(default_factory=dict)
