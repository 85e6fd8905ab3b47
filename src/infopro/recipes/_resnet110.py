"""ResNet-110's published cuts, which three data sets share."""

from __future__ import annotations

from infopro.recipes._cells import Blocks, Cuts, cut_names

__all__ = ["EQUAL_DEPTH"]

_EQUAL_DEPTH: dict[int, Blocks] = {
    2: ((2, 8),),
    3: ((1, 17), (2, 17)),
    4: ((1, 11), (2, 7), (3, 3)),
    8: ((1, 4), (1, 11), (2, 0), (2, 7), (2, 14), (3, 3), (3, 10)),
    16: (
        *((1, block) for block in (1, 4, 7, 10, 13, 16)),
        *((2, block) for block in (1, 4, 7, 11, 15)),
        *((3, block) for block in (1, 5, 9, 13)),
    ),
}
EQUAL_DEPTH: Cuts = cut_names(_EQUAL_DEPTH)
