"""The frozen dataclasses that the page draws: measured elsewhere, only shown here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from infopro.types import EpochRecord, StageSummary

__all__ = ["MethodResult", "Reconstruction", "ReportData"]


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What a decoder makes of the test images from the features of one module."""

    module: str  # "module 1"; the same label means the same place in the network for every method
    images: NDArray[np.uint8]  # [n, H, W, C], in the order of `ReportData.originals`
    error: float  # mean binary cross-entropy per pixel and channel, in nats, over the whole test set


@dataclass(frozen=True, eq=False)
class MethodResult:
    """One trained method, or one run: a row of the result table and a line in every chart."""

    name: str  # unique in a report
    description: str  # one line: what distinguishes it
    num_modules: int  # K; 1 is ordinary back-propagation
    records: tuple[EpochRecord, ...]
    saved_bytes: int  # kept by autograd for the backward pass at the worst moment of one step
    seconds: float  # of training, evaluation left out
    reconstructions: tuple[Reconstruction, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class ReportData:
    """Everything that one page shows; empty parts leave out their section."""

    title: str
    summary: str  # one paragraph: what was done, on which data, what to look at
    methods: tuple[MethodResult, ...]
    findings: tuple[str, ...] = ()  # one sentence each, with its numbers
    notes: tuple[str, ...] = ()  # limits a reader must know: seeds, sizes, what was not measured
    stages: tuple[StageSummary, ...] = ()
    stages_of: str = ""  # the method whose heads and bytes `stages` counts
    originals: NDArray[np.uint8] = field(
        default_factory=lambda: np.zeros((0, 1, 1, 3), np.uint8)
    )  # [n, H, W, C]
    captions: tuple[str, ...] = ()  # the class name of each original
    configuration: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
