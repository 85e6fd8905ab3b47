"""Equal depth: the same number of blocks for every module."""

from __future__ import annotations

from typing import Any

from torch import nn

from infopro.errors import BadSplit
from infopro.splitting.blocks import Blocks, find_blocks

__all__ = ["equal_depth", "equal_depth_cuts"]


def equal_depth_cuts(model: nn.Module, inputs: tuple[Any, ...], num_modules: int) -> list[str]:
    """The cuts of `equal_depth` for a network.

    Raises:
        BadSplit: K below 1, or above the number of blocks.
    """
    if num_modules < 1:
        raise BadSplit(
            "a network has at least one module", got=f"num_modules={num_modules}", allowed="1 or more"
        )
    if num_modules == 1:
        return []
    return equal_depth(find_blocks(model, inputs, at_least=num_modules), num_modules=num_modules)


def equal_depth(blocks: Blocks, *, num_modules: int) -> list[str]:
    """The K-1 cuts that deal the blocks out equally, a remainder going to the later modules.

    The stem joins the first module where the blocks alone divide by K, and counts as a block of its own where
    they do not. This one rule gives every equal-depth split of InfoPro's published networks (K = 2 to 16).

    Example:
        >>> equal_depth(Blocks("stem", ("a", "b", "c", "d"), True), num_modules=2)
        ['b']
        >>> equal_depth(Blocks("stem", ("a", "b", "c"), True), num_modules=4)
        ['stem', 'a', 'b']
    """
    if not 1 <= num_modules <= len(blocks.units):
        raise BadSplit(
            "the network does not have as many blocks as modules were asked for",
            got=f"num_modules={num_modules}",
            allowed=f"1 to {max(1, len(blocks.units))}",
            remedy="ask for fewer modules, or name finer cuts with cuts=[...]",
        )
    units = blocks.names if len(blocks) % num_modules == 0 else blocks.units
    size, larger = divmod(len(units), num_modules)
    ends, end = [], 0
    for index in range(num_modules - 1):
        end += size + (index >= num_modules - larger)
        ends.append(units[end - 1])
    return ends
