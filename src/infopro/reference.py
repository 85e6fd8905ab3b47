"""The slow, obvious implementation: every engine is compared with it, and users may compare theirs.

It shares nothing with the recorded parts. The caller's unmodified network runs once; whatever is made before
a cut is handed out detached to whatever runs behind it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from infopro.local import LocalModel, differentiate
from infopro.random_streams import seed_stage
from infopro.splitting import as_inputs
from infopro.splitting.live import run_live
from infopro.types import Batch, StepOutput

__all__ = ["reference_backward"]


def reference_backward(
    local: LocalModel, images: Any, targets: Tensor, *, seed: int | None = None
) -> StepOutput:
    """The same step as `local.backward`, computed from the network's own forward; `seed` as there.

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
        differentiate(stage_losses["total"])
        losses.append({name: value.detach() for name, value in stage_losses.items()})
        seed_stage(seed, index + 1)

    seed_stage(seed, 0)
    output = run_live(local.model, inputs, cuts=local.split.cuts, learn=learn)
    return StepOutput(tuple(losses), local.task.logits(output).detach())
