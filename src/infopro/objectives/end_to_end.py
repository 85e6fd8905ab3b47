"""Ordinary back-propagation: one module, the whole network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from infopro.errors import BadSplit
from infopro.objectives._base import Objective, StageObjective
from infopro.tasks import Task
from infopro.types import StageContext

__all__ = ["VARIANTS", "EndToEnd"]


@dataclass(frozen=True, kw_only=True)
class EndToEnd(Objective):
    """The task's own loss of the whole network: the baseline of every local method.

    Raises:
        BadSplit: built for a stage that is not the last, for it has no loss of its own.

    Example:
        >>> EndToEnd().describe()
        {'name': 'end-to-end'}
    """

    num_modules: ClassVar[int | None] = 1

    @property
    def name(self) -> str:
        return "end-to-end"

    def build_local(self, context: StageContext, task: Task) -> StageObjective:
        raise BadSplit(
            "end-to-end training has no local loss",
            got=f"{context.num_stages} modules",
            allowed="num_modules=1",
            remedy="choose a local objective, such as InfoPro, to train in several modules",
        )


VARIANTS: dict[str, tuple[type[Objective], dict[str, Any]]] = {"end-to-end": (EndToEnd, {})}
