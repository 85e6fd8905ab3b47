"""What an engine is: how the K modules of one step are run, and by which processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from infopro.local import LocalModel
from infopro.splitting import Flow
from infopro.types import Batch, StepOutput

__all__ = ["Engine", "Phase", "Work"]

Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Phase:
    """A stretch of batches that all processes go through: an epoch of training, or a test."""

    epoch: int
    training: bool
    sizes: tuple[int, ...]  # images of this replica, per batch
    totals: tuple[int, ...]  # images of all replicas, per batch
    first: int = 0  # batches that are done already


@dataclass(frozen=True)
class Work:
    """One batch as it reaches a process: this replica's images, and what the modules before have made."""

    flow: Flow | None  # None where the network runs as a whole
    batch: Batch
    phase: Phase
    step: int  # 0-based, in its phase

    @property
    def size(self) -> int:
        """Images of this replica."""
        return len(self.batch.targets)

    @property
    def total(self) -> int:
        """Images of all replicas."""
        return self.phase.totals[self.step]


class Engine(ABC):
    """One process's view of a step: the modules that it owns, where their input comes from and where it goes.

    The training loop is the same for every engine: it asks `feed` for work, calls `backward` on it, steps the
    optimizer over `parameters()`, unless `backward` does, and hands numbers to `gather`.
    """

    local: LocalModel
    stages: range  # the modules that this process trains
    replica: int = 0
    replicas: int = 1
    stopped: bool = False  # `feed` ended early because it was asked to
    optimizer: Optimizer | None = None  # stepped by `backward`, stage by stage; None: by the loop

    @property
    def is_last(self) -> bool:
        """Whether this process computes the network's output."""
        return self.stages.stop == len(self.local.stages)

    @property
    def writes(self) -> bool:
        """Whether this is the one process that gets all numbers, and logs."""
        return self.is_last and self.replica == 0

    def parameters(self) -> list[nn.Parameter]:
        """What this process's optimizer steps."""
        return list(self.local.parameters())

    @abstractmethod
    def feed(self, phase: Phase, batches: Callable[[], Batches]) -> Iterator[Work]:
        """The phase's batches; `batches` is called only where images enter the network."""

    @abstractmethod
    def backward(self, work: Work, *, seed: int) -> StepOutput:
        """Gradients of one local step for this process's modules; logits count on the last one only."""

    @abstractmethod
    def predict(self, work: Work) -> Any:
        """The network's output on the last process, None on the others."""

    def gather(self, value: Any) -> list[Any] | None:
        """Plain values of all processes, first module first, on the one that writes; None on the others."""
        return [value]

    def each(self, values: Sequence[float]) -> list[list[float]]:
        """What every replica of this process's modules says, first replica first."""
        return [list(values)]

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over the replicas of this process's modules."""
        return [sum(column) for column in zip(*self.each(values), strict=True)]

    def settle(self) -> None:  # noqa: B027
        """Make what the replicas keep each for itself equal: before a test and a checkpoint."""

    def span(self, kind: Any, step: int | None = None) -> AbstractContextManager[object]:
        """Time spent on something, for a timeline where there is one."""
        return nullcontext()
