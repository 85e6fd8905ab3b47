"""End to end with checkpointing in K segments of equal memory: the exact gradient, for another forward."""

from __future__ import annotations

from typing import Any

from torch import nn

from infopro.assembly import assemble
from infopro.local import LocalModel
from infopro.memory.choose import chooser_for
from infopro.objectives import EndToEnd, Greedy
from infopro.splitting import as_inputs, split_model, together
from infopro.splitting.inputs import check_network
from infopro.tasks import Task

__all__ = ["checkpoint_segments"]


def checkpoint_segments(model: nn.Module, example_input: Any, *, num_segments: int, task: Task) -> LocalModel:
    """Train a network end to end in K segments, all but the last of which run again in the backward pass.

    The segments save as equally much as blocks allow. `backward` is the step of plain back-propagation to the
    last bit, BatchNorm's statistics included; only what it keeps and how long it takes differ.

    Args:
        example_input: a tensor [N, ...] or a tuple of the network's inputs.

    Raises:
        BadSplit, BadInput, NotSplittable: see `infopro.splitting.split_model`.
        NotYetSupported: a network that can only run live.

    Example:
        >>> import torch, infopro
        >>> whole = infopro.memory.checkpoint_segments(
        ...     infopro.models.cifar_resnet(20, 10), torch.zeros(2, 3, 32, 32), num_segments=3,
        ...     task=infopro.tasks.Classification(num_classes=10))
        >>> whole.split.num_modules, whole.split.recomputed
        (1, ('layer1.1', 'layer2.0'))
    """
    inputs = as_inputs(example_input)
    check_network(model, inputs)
    # no head is built: which local objective the costs are taken with does not matter
    ends = chooser_for(model, inputs, objective=Greedy(), task=task).segments(num_segments)
    split = split_model(model, inputs, cuts=[], recompute=together(ends))
    return assemble(split, inputs, objective=EndToEnd(), task=task)
