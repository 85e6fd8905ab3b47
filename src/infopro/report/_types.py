"""The frozen dataclasses that the page draws: measured elsewhere, only shown here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from infopro.analysis import Analysis
from infopro.engines.timeline import StageTimeline
from infopro.types import EpochRecord, StageSummary

__all__ = [
    "DrawnSplit",
    "MaskPictures",
    "MaskRow",
    "MethodResult",
    "Reconstruction",
    "ReportData",
    "RunResult",
    "StepBytes",
]


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What a decoder makes of the test images from the features of one module."""

    module: str  # "module 1"; the same label means the same place in the network for every method
    images: NDArray[np.uint8]  # [n, H, W, C], in the order of `ReportData.originals`
    error: float  # mean binary cross-entropy per pixel and channel, in nats, over the whole test set


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskRow:
    """What one net of one method makes of the test images, in colours or as a drawing."""

    method: str
    source: str  # "prediction", "module 1's own prediction", "drawn from module 1"
    images: NDArray[np.uint8]  # [n, H, W, 3]


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskPictures:
    """The rows of one page; all have the same test images."""

    images: NDArray[np.uint8]  # [n, H, W, 3]
    truth: NDArray[np.uint8]  # [n, H, W, 3], in the classes' colours
    rows: tuple[MaskRow, ...]  # method by method
    legend: tuple[tuple[str, tuple[int, int, int]], ...]  # class name and its colour


@dataclass(frozen=True, eq=False, kw_only=True)
class RunResult:
    """One training of a method, with one seed."""

    name: str  # unique within its method: "seed 0"
    seed: int
    records: tuple[EpochRecord, ...]  # of the epochs so far
    epochs: int  # that it trains in all
    folder: str = ""  # the name of the run's folder
    analysis: Analysis | None = None

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done."""
        return bool(self.records) and self.records[-1].epoch >= self.epochs

    @property
    def seconds(self) -> float:
        """Of training so far, evaluation left out."""
        return sum(record.seconds for record in self.records)


@dataclass(frozen=True, kw_only=True)
class StepBytes:
    """The bytes that are alive at the worst moment of one training step, by kind."""

    name: str  # of the method, or of another manner of training that is shown beside
    kinds: Mapping[str, int]  # they add up to the peak


@dataclass(frozen=True, eq=False, kw_only=True)
class MethodResult:
    """One way of training, with one or several seeds: a row of the result table and a line in every chart."""

    name: str  # unique in a report
    description: str = ""  # one line: what distinguishes it
    num_modules: int  # K; 1 is ordinary back-propagation
    runs: tuple[RunResult, ...]
    family: str = ""  # the same for one objective with every K, which then share a colour; "": the name
    saved_bytes: int | None = None  # kept by autograd for the backward pass at the worst moment of one step
    reconstructions: tuple[Reconstruction, ...] = ()

    @property
    def records(self) -> tuple[EpochRecord, ...]:
        """Of the first run."""
        return self.runs[0].records if self.runs else ()

    @property
    def label(self) -> str:
        """What its colour stands for."""
        return self.family or self.name

    @property
    def counted(self) -> tuple[RunResult, ...]:
        """The runs that means are over: the finished ones, or all where none is finished yet."""
        return tuple(run for run in self.runs if run.finished) or self.runs


@dataclass(frozen=True, kw_only=True)
class DrawnSplit:
    """One split to draw."""

    of: str  # the method whose heads and bytes it counts
    stages: tuple[StageSummary, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class ReportData:
    """Everything that one page shows; empty parts leave out their section."""

    title: str
    summary: str  # one paragraph: what was done, on which data, what to look at
    methods: tuple[MethodResult, ...]  # differences are to the first one
    findings: tuple[str, ...] = ()  # one sentence each, with its numbers
    notes: tuple[str, ...] = ()  # limits a reader must know: seeds, sizes, what was not measured
    splits: tuple[DrawnSplit, ...] = ()  # the first is shown, the others are unfolded
    memory: tuple[StepBytes, ...] = ()  # predicted
    memory_note: str = ""  # of which step, and what is not counted
    originals: NDArray[np.uint8] = field(
        default_factory=lambda: np.zeros((0, 1, 1, 3), np.uint8)
    )  # [n, H, W, C]
    captions: tuple[str, ...] = ()  # the class name of each original
    masks: MaskPictures | None = None  # where every pixel has a class
    timelines: tuple[StageTimeline, ...] = ()  # of one run by several processes
    timelines_of: str = ""
    probes: Mapping[str, str] = field(default_factory=dict)  # how the analysis was made
    configuration: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    commands: Mapping[str, str] = field(default_factory=dict)  # of each run
