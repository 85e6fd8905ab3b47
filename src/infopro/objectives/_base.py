"""What an objective is: a description that is built, stage by stage, into heads and a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor, nn

from infopro.heads import check_task_head_name, task_head
from infopro.tasks import Task
from infopro.types import Batch, StageContext

__all__ = ["HeadObjective", "HeadStage", "Objective", "OutputStage", "StageObjective"]


class StageObjective(nn.Module, ABC):
    """What one stage is trained on; its parameters are those of its heads, which fall away after training."""

    heads: nn.ModuleDict
    # set by an engine whose ranks hold parts of a batch: (rows, targets) of this part to those of the whole
    # batch, gradients included; for losses that compare the images of a batch, or places in them
    gather: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None

    def __init__(self, *, task: Task, heads: dict[str, nn.Module]):
        super().__init__()
        self.task = task
        self.heads = nn.ModuleDict(heads)

    @property
    def reads_images(self) -> bool:
        """Whether `forward` looks at `batch.images`; where it does not, nobody need send them."""
        return True

    @abstractmethod
    def forward(self, features: Any, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses, attached; "total" is the one to differentiate.

        Args:
            features: the tensor that crosses the cut, [N, ...]; for the last stage the network's own output.
            batch: the images and targets that the features came from.
        """

    def check(self, batch: Batch) -> None:
        """Raises BadInput where this objective cannot use a batch; meant for once, before the first step."""


class OutputStage(StageObjective):
    """The last stage of every method: the task's own loss of the network's own output."""

    def __init__(self, *, task: Task):
        super().__init__(task=task, heads={})

    @property
    def reads_images(self) -> bool:
        return False

    def forward(self, features: Any, batch: Batch) -> dict[str, Tensor]:
        loss = self.task.loss(features, batch.targets)
        return {"task": loss, "total": loss}


class HeadStage(StageObjective):
    """A task head on the features, and the task's loss of what it predicts."""

    def __init__(self, *, task: Task, head: nn.Module):
        super().__init__(task=task, heads={"task": head})

    @property
    def reads_images(self) -> bool:
        return False

    def forward(self, features: Any, batch: Batch) -> dict[str, Tensor]:
        loss = self.task.loss(self.heads["task"](features), batch.targets)
        return {"task": loss, "total": loss}


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """A picklable description of a method; `build` makes the heads and the loss of one stage."""

    num_modules: ClassVar[int | None] = None  # the only K that the method allows

    @property
    @abstractmethod
    def name(self) -> str:
        """What `from_name` calls it."""

    @abstractmethod
    def build_local(self, context: StageContext, task: Task) -> StageObjective:
        """Heads and loss of a stage that is not the last."""

    def build(self, context: StageContext, task: Task) -> StageObjective:
        """Heads and loss of one stage; the last one has no heads and the task's own loss."""
        return OutputStage(task=task) if context.is_last else self.build_local(context, task)

    def describe(self) -> dict[str, Any]:
        """Plain values for the run record; `from_name(**description)` gives the objective again."""
        options = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return {"name": self.name, **options}


@dataclass(frozen=True, kw_only=True)
class HeadObjective(Objective):
    """A method whose every local module is trained by one task head; subclasses give the head's default."""

    task_head: str

    def __post_init__(self) -> None:
        check_task_head_name(self.task_head)

    def build_local(self, context: StageContext, task: Task) -> StageObjective:
        head = task_head(
            self.task_head,
            feature_shape=context.feature_shape,
            image_shape=context.image_shape,
            out_features=task.out_features,
            dense=task.dense,
        )
        return HeadStage(task=task, head=head)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
