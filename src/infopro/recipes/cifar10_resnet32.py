"""CIFAR-10, ResNet-32: Table 2. K = 3 has published cuts but no published error."""

from __future__ import annotations

from infopro.recipes._cells import Blocks, Errors, Lambdas, cut_names, end_to_end, local_cells
from infopro.recipes._config import RunConfig
from infopro.recipes._recipe import Published, Recipe

__all__ = ["RECIPES"]

_BASE = RunConfig(model="cifar_resnet32", data="cifar10")
_CUTS: dict[int, Blocks] = {
    2: ((2, 1),),
    3: ((1, 4), (2, 4)),
    4: ((1, 2), (2, 1), (3, 0)),
    8: ((1, 0), (1, 2), (1, 4), (2, 1), (2, 3), (3, 0), (3, 2)),
    16: (
        (0, 0),  # the stem is a module of its own
        *((1, block) for block in range(5)),
        *((2, block) for block in range(5)),
        *((3, block) for block in range(4)),
    ),
}
_LAMBDAS: Lambdas = {
    2: (5, 1, 0, 0),
    4: (6, 0, 1, 2),
    8: (5, 0, 0, 2),
    16: (5, 0.05, 0.2, 0.5),
}
_ERRORS: Errors = {
    "greedy": {2: (10.30, 0.20), 4: (16.07, 0.46), 8: (21.19, 0.52), 16: (24.59, 0.83)},
    "dgl": {2: (8.69, 0.12), 4: (11.48, 0.20), 8: (14.17, 0.28), 16: (16.21, 0.36)},
    "infopro-softmax": {2: (8.13, 0.23), 4: (8.64, 0.25), 8: (11.40, 0.18), 16: (14.23, 0.42)},
    "infopro-contrast": {2: (7.76, 0.12), 4: (8.58, 0.17), 8: (11.13, 0.19), 16: (12.75, 0.11)},
}

RECIPES: tuple[Recipe, ...] = (
    end_to_end(
        "cifar10-resnet32", _BASE, Published(test_error=7.37, standard_deviation=0.10, table="Table 2")
    ),
    *local_cells("cifar10-resnet32", _BASE, cuts=cut_names(_CUTS), lambdas=_LAMBDAS, errors=_ERRORS),
)
