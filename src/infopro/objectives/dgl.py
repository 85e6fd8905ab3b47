"""Decoupled greedy learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from infopro.objectives._base import HeadObjective, Objective

__all__ = ["DGL", "VARIANTS"]


@dataclass(frozen=True, kw_only=True)
class DGL(HeadObjective):
    """Each local module minimises the task's loss of a pooled multi-layer perceptron.

    Belilovsky, Eickenberg, Oyallon, ICML 2020 (arXiv 1901.08164), synchronous form, head "MLP-SR"; for a
    dense task that head's fully convolutional form. Theirs steps each module's own optimizer right after its
    backward pass: do so in `on_stage_done`.

    Args:
        task_head: a name of `infopro.heads.list_task_heads()`, or "auto".

    Raises:
        UnknownName: no such head.
        BadConfiguration: when built, a head for pixels where the task is not dense.

    Example:
        >>> DGL().describe()
        {'name': 'dgl', 'task_head': 'mlp-sr'}
    """

    task_head: str = "mlp-sr"

    @property
    def name(self) -> str:
        return "dgl"


VARIANTS: dict[str, tuple[type[Objective], dict[str, Any]]] = {"dgl": (DGL, {})}
