"""Greedy local learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from infopro.objectives._base import HeadObjective, Objective

__all__ = ["VARIANTS", "Greedy"]


@dataclass(frozen=True, kw_only=True)
class Greedy(HeadObjective):
    """Each local module minimises the task's loss of a small head: global average pool and one linear layer.

    For a dense task that is one 1x1 convolution. "Greedy SL" of Wang et al., ICLR 2021, table 1: what local
    learning loses without information propagation.

    Args:
        task_head: a name of `infopro.heads.list_task_heads()`, or "auto".

    Raises:
        UnknownName: no such head.
        BadConfiguration: when built, a head for pixels where the task is not dense.

    Example:
        >>> Greedy().describe()
        {'name': 'greedy', 'task_head': '0c1f'}
    """

    task_head: str = "0c1f"

    @property
    def name(self) -> str:
        return "greedy"


VARIANTS: dict[str, tuple[type[Objective], dict[str, Any]]] = {"greedy": (Greedy, {})}
