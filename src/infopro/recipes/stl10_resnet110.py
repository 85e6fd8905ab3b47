"""STL-10 (96x96), ResNet-110: Tables 2 and 3."""

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

__all__ = ["RECIPES"]

_BASE = RunConfig(model="cifar_resnet110", data="stl10", batch_size=128, learning_rate=0.1)
_LAMBDAS: Lambdas = {
    2: (10, 1, 0, 0),
    4: (20, 0.2, 5, 2),
    8: (20, 0.2, 5, 1),
    16: (20, 0.5, 10, 0.1),
}
_ERRORS: Errors = {
    "greedy": {2: (25.56, 1.37), 4: (27.97, 0.75), 8: (29.07, 0.76), 16: (30.38, 0.39)},
    "dgl": {2: (24.96, 1.18), 4: (26.77, 0.64), 8: (27.33, 0.24), 16: (27.73, 0.58)},
    "infopro-softmax": {2: (21.02, 0.51), 4: (21.28, 0.27), 8: (23.60, 0.49), 16: (26.05, 0.71)},
    "infopro-contrast": {2: (20.99, 0.64), 4: (22.73, 0.40), 8: (25.15, 0.52), 16: (26.27, 0.48)},
}
_BALANCED_CUTS: dict[int, Blocks] = {
    2: ((1, 14),),
    3: ((1, 8), (2, 1)),
    4: ((1, 6), (1, 14), (2, 8)),
}
_BALANCED_LAMBDAS: Lambdas = {2: (20, 1, 0, 0), 3: (20, 0.5, 5, 2), 4: (20, 0.5, 10, 1)}
_BALANCED_RESULTS = {2: (20.95, 0.57, 6.15), 3: (21.00, 0.52, 4.96), 4: (21.22, 0.72, 4.08)}
_OUTPUTS = "the published code gives its STL-10 classifiers 100 outputs by a typing error: here 10"

RECIPES: tuple[Recipe, ...] = (
    end_to_end(
        "stl10-resnet110",
        _BASE,
        Published(test_error=22.27, standard_deviation=1.61, table="Tables 2 and 3", memory_gb=10.77),
        notes=(_OUTPUTS,),
    ),
    *local_cells(
        "stl10-resnet110",
        _BASE,
        cuts={num_modules: _resnet110.EQUAL_DEPTH[num_modules] for num_modules in _LAMBDAS},
        lambdas=_LAMBDAS,
        errors=_ERRORS,
        notes=(_OUTPUTS,),
    ),
    *balanced_cells(
        "stl10-resnet110",
        _BASE,
        cuts=cut_names(_BALANCED_CUTS),
        lambdas=_BALANCED_LAMBDAS,
        results=_BALANCED_RESULTS,
        notes=(_OUTPUTS,),
    ),
)
