"""Equal depth: the same number of blocks for every module."""

from __future__ import annotations

from infopro.errors import BadSplit
from infopro.split.blocks import Blocks

__all__ = ["equal_depth"]


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
