"""CIFAR-10, DenseNet-BC-100-12: Table 2."""

from __future__ import annotations

from infopro.recipes._cells import Errors, end_to_end, local_cells
from infopro.recipes._config import RunConfig
from infopro.recipes._recipe import Published, Recipe
from infopro.recipes.cifar10_resnet110 import LAMBDAS

__all__ = ["RECIPES"]

_NAME = "cifar10-densenet-bc-100-12"
_BASE = RunConfig(model="cifar_densenet_bc_100_12", data="cifar10")
_NUM_LAYERS = 16  # of each of the three dense blocks
_ERRORS: Errors = {
    "greedy": {2: (5.10, 0.05), 4: (6.07, 0.21), 8: (8.21, 0.31), 16: (10.41, 0.42)},
    "dgl": {2: (4.86, 0.15), 4: (5.71, 0.04), 8: (6.82, 0.21), 16: (7.67, 0.16)},
    "infopro-softmax": {2: (4.79, 0.07), 4: (5.69, 0.21), 8: (6.44, 0.11), 16: (7.47, 0.21)},
    "infopro-contrast": {2: (4.74, 0.04), 4: (5.24, 0.25), 8: (5.86, 0.18), 16: (6.92, 0.16)},
}
_CUT_NOTE = "the cuts are not published: these give every module the same number of dense layers"
_LAMBDA_NOTE = "the λ of DenseNet are not published: these are ResNet-110's for CIFAR-10 and the same K"


def _equal_depth(num_modules: int) -> tuple[str, ...]:
    """Cuts behind every (48 / K)th dense layer; none falls on the end of a dense block."""
    layers = [
        f"features.denseblock{block}.denselayer{layer}"
        for block in (1, 2, 3)
        for layer in range(1, _NUM_LAYERS + 1)
    ]
    size = len(layers) // num_modules
    return tuple(layers[size - 1 : -1 : size])


def _cells() -> tuple[Recipe, ...]:
    cuts = {num_modules: _equal_depth(num_modules) for num_modules in (2, 4, 8, 16)}
    baselines = {name: errors for name, errors in _ERRORS.items() if not name.startswith("infopro")}
    infopro = {name: errors for name, errors in _ERRORS.items() if name.startswith("infopro")}
    notes = (_CUT_NOTE, _LAMBDA_NOTE)
    return (
        *local_cells(_NAME, _BASE, cuts=cuts, lambdas=LAMBDAS, errors=baselines, notes=notes[:1]),
        *local_cells(_NAME, _BASE, cuts=cuts, lambdas=LAMBDAS, errors=infopro, notes=notes),
    )


RECIPES: tuple[Recipe, ...] = (
    end_to_end(_NAME, _BASE, Published(test_error=4.61, standard_deviation=0.08, table="Table 2")),
    *_cells(),
)
