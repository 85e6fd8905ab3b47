"""SVHN, ResNet-110: Table 2."""

from __future__ import annotations

from infopro.recipes import _resnet110
from infopro.recipes._cells import Errors, Lambdas, end_to_end, local_cells
from infopro.recipes._config import RunConfig
from infopro.recipes._recipe import Published, Recipe

__all__ = ["RECIPES"]

_BASE = RunConfig(model="cifar_resnet110", data="svhn")
_LAMBDAS: Lambdas = {
    2: (1, 0.1, 0, 0),
    4: (5, 0, 0.5, 1),
    8: (5, 0, 0.5, 2),
    16: (5, 0.2, 0.5, 1),
}
_ERRORS: Errors = {
    "greedy": {2: (3.71, 0.16), 4: (5.39, 0.22), 8: (5.75, 0.10), 16: (6.37, 0.42)},
    "dgl": {2: (3.61, 0.16), 4: (4.97, 0.19), 8: (5.35, 0.13), 16: (5.55, 0.34)},
    "infopro-softmax": {2: (3.41, 0.08), 4: (3.72, 0.03), 8: (4.67, 0.07), 16: (5.14, 0.08)},
    "infopro-contrast": {2: (3.15, 0.03), 4: (3.28, 0.11), 8: (3.62, 0.11), 16: (3.91, 0.16)},
}

RECIPES: tuple[Recipe, ...] = (
    end_to_end("svhn-resnet110", _BASE, Published(test_error=3.07, standard_deviation=0.23, table="Table 2")),
    *local_cells(
        "svhn-resnet110",
        _BASE,
        cuts={num_modules: _resnet110.EQUAL_DEPTH[num_modules] for num_modules in _LAMBDAS},
        lambdas=_LAMBDAS,
        errors=_ERRORS,
    ),
)
