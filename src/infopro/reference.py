"""The slow, obvious implementation: every engine is compared with it, and users may compare theirs.

It shares nothing with the recorded parts. The caller's unmodified network runs once; whatever is made before
a cut is handed out detached to whatever runs behind it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from infopro.local import LocalModel
from infopro.splitting import as_inputs
from infopro.splitting.live import run_live
from infopro.types import Batch, StepOutput

__all__ = ["reference_backward"]


def reference_backward(local: LocalModel, images: Any, targets: Tensor) -> StepOutput:
    """The same step as `local.backward`, computed from the network's own forward.

    Example:
        >>> import infopro
        >>> infopro.reference_backward.__module__
        'infopro.reference'
    """
    inputs = as_inputs(images)
    batch = Batch(images=inputs[0], targets=targets)
    losses = []

    def learn(index: int, features: Any) -> None:
        stage_losses = local.stages[index].objective(features, batch)
        if stage_losses["total"].requires_grad:
            with torch.autocast(stage_losses["total"].device.type, enabled=False):
                torch.autograd.backward(stage_losses["total"])
        losses.append({name: value.detach() for name, value in stage_losses.items()})

    output = run_live(local.model, inputs, cuts=local.split.cuts, learn=learn)
    return StepOutput(tuple(losses), local.task.logits(output).detach())
