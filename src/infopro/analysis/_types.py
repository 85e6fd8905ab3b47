"""What an analysis finds, as plain data: the same names in analysis.json, in tables and on the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Analysis",
    "BlockInformation",
    "DecodedImages",
    "ModuleGradient",
    "ProbeResults",
    "References",
    "Similarity",
]


@dataclass(frozen=True, kw_only=True)
class BlockInformation:
    """What the output of one block says of the image, of its class and of its nuisance.

    Tuples hold one number per probe seed; a quantity that was not estimated is empty.
    """

    block: str  # "layer1.0"; "input" for the image itself
    depth: int  # 0 for the image, then 1, 2, ... in order of execution
    module: int  # the local module that it belongs to, 1 to K; 0 for the image
    feature_shape: tuple[int, ...]  # without the batch dimension
    linear_error: tuple[float, ...] = ()  # %, test error of a linear classifier; deterministic: one number
    input_cross_entropy: tuple[float, ...] = ()  # nats per pixel and channel, of test images decoded from it
    task_information: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # nats, by capacity
    task_error: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # %, by capacity
    nuisance_information: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # nats, by factor


@dataclass(frozen=True, kw_only=True)
class References:
    """What the estimates are measured against."""

    pixels: int  # numbers in an image: channels x height x width
    label_entropy: float  # nats, H(y)
    constant_cross_entropy: float  # nats per pixel and channel, of the best constant image; nan: no decoder
    nuisance_entropy: Mapping[str, float] = field(default_factory=dict)  # nats, by factor


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedImages:
    """Some test images, and what the decoder of each block makes of them; the first seed's decoders."""

    originals: NDArray[np.uint8]  # [n, H, W, C]
    captions: tuple[str, ...]  # n; the classes' names
    blocks: tuple[str, ...]
    decoded: NDArray[np.uint8]  # [blocks, n, H, W, C]


@dataclass(frozen=True, kw_only=True)
class ProbeResults:
    """What `probe_blocks` finds."""

    references: References
    blocks: tuple[BlockInformation, ...]
    images: DecodedImages | None = None  # None where no decoder was trained
    settings: Mapping[str, object] = field(default_factory=dict)  # how the probes were trained: plain values
    notes: tuple[str, ...] = ()  # what a reader should know: factors left out, solvers that did not converge


@dataclass(frozen=True, kw_only=True)
class ModuleGradient:
    """The gradient that a module learns from, beside the one that end to end would give it.

    Tuples hold one number per batch.
    """

    module: int  # 1 to K
    local_norm: tuple[float, ...]
    end_to_end_norm: tuple[float, ...]
    angle_degrees: tuple[float, ...]  # 0: the same direction, 90: unrelated, 180: opposite


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Linear CKA between the blocks of two networks, or of one with itself."""

    row_run: str
    column_run: str
    rows: tuple[str, ...]  # blocks
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]  # [rows][columns], at most 1, by chance below 0; nan: no variation


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """All that was found out about one trained network."""

    references: References
    blocks: tuple[BlockInformation, ...] = ()
    gradients: tuple[ModuleGradient, ...] = ()
    similarities: tuple[Similarity, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)  # how the probes were trained
    seconds: float = 0.0
    images: DecodedImages | None = field(default=None, compare=False, repr=False)
    notes: tuple[str, ...] = ()  # what a reader should know: factors left out, solvers that did not converge
    record: Mapping[str, object] = field(default_factory=dict)  # command, checkpoint, versions, hardware
