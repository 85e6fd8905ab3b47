"""Stepping stage by stage: the gradients of one module exist at a time."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from infopro.errors import BadInput
from infopro.local import LocalModel

__all__ = ["StageSteps"]


class StageSteps:
    """Called with the index of a stage whose gradients are complete: steps the optimizer, and frees them.

    Every module reads features from before any update, so the weights are bit for bit those of one step at
    the end. One optimizer serves all stages: torch's optimizers pass over parameters without a gradient, and
    those of the other stages have none, or it is hidden from the optimizer meanwhile. A parameter of several
    stages is stepped behind the last of them. Groups, learning rates and checkpoints remain its own.

    Not exact for an optimizer that looks at several parameters at once; its step hooks run once a stage.

    Args:
        optimizer: of `local.parameters()`, in any groups.

    Raises:
        BadInput: an optimizer with parameters that no stage trains.

    Example:
        >>> import torch, infopro
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> local = infopro.localize(
        ...     net,
        ...     torch.zeros(2, 4),
        ...     cuts=["1"],
        ...     objective=infopro.objectives.Greedy(),
        ...     task=infopro.tasks.Classification(num_classes=2),
        ... )
        >>> optimizer = torch.optim.SGD(local.parameters(), lr=0.1)
        >>> images, labels = torch.rand(6, 4), torch.tensor([0, 1] * 3)
        >>> out = local.backward(images, labels, on_stage_done=StageSteps(local, optimizer))
        >>> [parameter.grad for parameter in net.parameters()]
        [None, None, None, None]
    """

    def __init__(self, local: LocalModel, optimizer: Optimizer):
        last = {parameter: k for k, stage in enumerate(local.stages) for parameter in stage.parameters()}
        self.optimizer = optimizer
        self._complete = [{p for p, k in last.items() if k == index} for index in range(len(local.stages))]
        strange = set(self._parameters()) - set(local.parameters())
        if strange:
            raise BadInput(
                "the optimizer holds parameters of another model",
                got=f"{len(strange)} of them",
                remedy="make it of local.parameters()",
            )

    def __call__(self, index: int) -> None:
        self.step(index)
        self.free(index)

    def step(self, index: int) -> None:
        """Step the parameters of which this stage is the last one."""
        complete = self._complete[index]
        if not complete:
            return
        others = {p: p.grad for p in self._parameters() if p not in complete and p.grad is not None}
        for parameter in others:
            parameter.grad = None
        with torch.autocast(next(iter(complete)).device.type, enabled=False):  # as behind a whole step
            self.optimizer.step()
        for parameter, gradient in others.items():
            parameter.grad = gradient

    def free(self, index: int) -> None:
        """Drop the gradients that `step` has used."""
        for parameter in self._complete[index]:
            parameter.grad = None

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
