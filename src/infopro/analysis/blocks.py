"""Which blocks of a network are analysed, and to which local module each belongs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from infopro.errors import BadInput, UnknownName
from infopro.splitting import as_inputs, blocks
from infopro.splitting.survey import survey

__all__ = ["blocks_of", "modules_of_blocks"]


def blocks_of(model: nn.Module, example_input: Any) -> tuple[str, ...]:
    """The blocks of any network behind which a cut is sound, its stem first, in order of execution.

    Args:
        example_input: a batch [N, ...] or a tuple of the network's inputs; only sizes and dtypes matter.

    Raises:
        BadInput: a network without modules that could be told apart.

    Example:
        >>> import infopro, torch
        >>> blocks_of(infopro.models.create("demo_resnet", num_classes=10), torch.zeros(2, 3, 32, 32))
        ('relu', 'layer1.0', 'layer1.1', 'layer2.0', 'layer2.1', 'layer3.0', 'layer3.1')
    """
    found = blocks(model, example_input).units
    if not found:
        raise BadInput(
            f"{type(model).__name__} shows no blocks",
            remedy="analyse a network that is built of named modules, or name the blocks",
        )
    return found


def modules_of_blocks(
    model: nn.Module, example_input: Any, *, blocks: Sequence[str], cuts: Sequence[str]
) -> Mapping[str, int]:
    """The local module, 1 to K, that each block runs in, where the network is cut behind `cuts`.

    A block belongs to the module during which it returns, so blocks need not be those that cuts were
    chosen from.

    Raises:
        UnknownName: a block or a cut that the network does not run.

    Example:
        >>> import infopro, torch
        >>> net = infopro.models.create("demo_resnet", num_classes=10)
        >>> chosen, cuts = ["relu", "layer1.1", "layer3.1"], ["layer1.1", "layer2.0"]
        >>> modules_of_blocks(net, torch.zeros(2, 3, 32, 32), blocks=chosen, cuts=cuts)
        {'relu': 1, 'layer1.1': 1, 'layer3.1': 3}
    """
    run = survey(model, as_inputs(example_input))
    for name in (*blocks, *cuts):
        if name not in run.calls:
            raise UnknownName("block", name, run.calls)
    ends = [run.end(cut) for cut in cuts]
    return {block: 1 + sum(end < run.end(block) for end in ends) for block in blocks}
