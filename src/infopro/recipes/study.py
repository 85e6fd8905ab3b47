"""The study of docs/study.md: what two cores can afford, of the paper's three figures.

Cuts are nested: every cut of K = 2 is one of K = 4, every one of those one of K = 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from infopro.recipes._config import RunConfig
from infopro.recipes._recipe import Recipe

__all__ = ["RECIPES"]

_SOURCE = "this package's study; λ chosen on a held-out part of the training set"
_CUTS = {
    2: ("layer2.0",),
    4: ("layer1.1", "layer2.0", "layer2.2"),
    8: ("layer1.0", "layer1.1", "layer1.2", "layer2.0", "layer2.1", "layer2.2", "layer3.0"),
}
_DIGITS = RunConfig(
    model="demo_resnet20",
    data="digits-on-photos",
    epochs=16,
    batch_size=64,
    learning_rate=0.1,
    schedule="cosine",
    warmup_epochs=1.0,
    weight_decay=5e-4,
    reconstruction_weight=None,
    task_weight=1.0,
    decoder="half",
)
_CIFAR10 = replace(_DIGITS, data="cifar10", limit_train=10_000, limit_test=5000, epochs=8)
_CONTROL = "the control λ1 = 0: InfoPro's task head alone, lest a stronger head be taken for reconstruction"
_METHODS: dict[str, dict[str, Any]] = {
    "greedy": {"objective": "greedy"},
    "dgl": {"objective": "dgl"},
    "no-reconstruction": {"objective": "infopro-softmax"},
    "infopro-softmax": {"objective": "infopro-softmax"},
    "infopro-contrast": {"objective": "infopro-contrast"},
}
# λ1, λ2 as benchmarks/study_search.py chose them at K = 4
_WEIGHTS = {
    ("study-digits", "infopro-softmax"): (1.0, 1.0),
    ("study-digits", "infopro-contrast"): (10.0, 1.0),
    ("study-cifar10", "infopro-softmax"): (3.0, 1.0),
    ("study-cifar10", "infopro-contrast"): (30.0, 1.0),
}


def _cells(family: str, base: RunConfig) -> Iterator[Recipe]:
    whole = replace(base, objective="end-to-end", num_modules=1)
    yield Recipe(name=f"{family}-end-to-end", config=whole, published=None, source=_SOURCE)
    for num_modules, cuts in _CUTS.items():
        for method, options in _METHODS.items():
            reconstruction, task = _WEIGHTS.get((family, method), (None, 1.0))
            weights: dict[str, Any] = {"reconstruction_weight": reconstruction, "task_weight": task}
            yield Recipe(
                name=f"{family}-k{num_modules}-{method}",
                config=replace(base, num_modules=num_modules, cuts=cuts, **options, **weights),
                published=None,
                source=_SOURCE,
                notes=(_CONTROL,) if method == "no-reconstruction" else (),
            )


RECIPES: tuple[Recipe, ...] = (*_cells("study-digits", _DIGITS), *_cells("study-cifar10", _CIFAR10))
