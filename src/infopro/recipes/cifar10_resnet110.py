"""CIFAR-10, ResNet-110: Tables 2 and 3.

Left out: "Greedy SL+" (a deeper network of InfoPro's compute, whose depth is not published), "Asy-InfoPro"
(how it was run is not published) and gradient checkpointing (not local learning). K = 3 at equal depth has no
published error.
"""

from __future__ import annotations

from infopro.recipes import _resnet110
from infopro.recipes._cells import (
    Blocks,
    Errors,
    Lambdas,
    balanced_cells,
    cut_names,
    end_to_end,
    local_cells,
)
from infopro.recipes._config import RunConfig
from infopro.recipes._recipe import Published, Recipe

__all__ = ["LAMBDAS", "RECIPES"]

_BASE = RunConfig(model="cifar_resnet110", data="cifar10")
LAMBDAS: Lambdas = {
    2: (5, 0.5, 0, 0),
    4: (1, 0, 0, 1),
    8: (5, 0, 0, 1),
    16: (5, 0, 0.5, 1),
}
_ERRORS: Errors = {
    "greedy": {2: (8.21, 0.24), 4: (13.16, 0.28), 8: (15.61, 0.57), 16: (18.92, 1.27)},
    "dgl": {2: (7.70, 0.28), 4: (10.50, 0.11), 8: (12.46, 0.37), 16: (13.80, 0.15)},
    "infopro-softmax": {2: (7.01, 0.34), 4: (7.96, 0.06), 8: (9.40, 0.27), 16: (10.78, 0.28)},
    "infopro-contrast": {2: (6.42, 0.08), 4: (7.30, 0.14), 8: (8.93, 0.40), 16: (9.90, 0.19)},
}
_BALANCED_CUTS: dict[int, Blocks] = {
    2: ((1, 14),),
    3: ((1, 9), (2, 2)),
    4: ((1, 6), (1, 14), (2, 8)),
}
_BALANCED_LAMBDAS: Lambdas = {2: (5, 0.1, 0, 0), 3: (5, 0, 5, 0.1), 4: (5, 0, 5, 0.1)}
_BALANCED_RESULTS = {2: (6.41, 0.13, 5.38), 3: (6.74, 0.12, 4.22), 4: (6.93, 0.20, 3.52)}

RECIPES: tuple[Recipe, ...] = (
    end_to_end(
        "cifar10-resnet110",
        _BASE,
        Published(test_error=6.50, standard_deviation=0.34, table="Tables 2 and 3", memory_gb=9.40),
    ),
    *local_cells("cifar10-resnet110", _BASE, cuts=_resnet110.EQUAL_DEPTH, lambdas=LAMBDAS, errors=_ERRORS),
    *balanced_cells(
        "cifar10-resnet110",
        _BASE,
        cuts=cut_names(_BALANCED_CUTS),
        lambdas=_BALANCED_LAMBDAS,
        results=_BALANCED_RESULTS,
    ),
)
