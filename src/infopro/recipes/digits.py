"""Digits on photos, embedded: the same small network trained in each way, minutes on a CPU."""

from __future__ import annotations

from dataclasses import replace

from infopro.recipes._config import RunConfig
from infopro.recipes._recipe import Recipe

__all__ = ["RECIPES"]

_SOURCE = "this package's demonstration; chosen on a held-out part of the training set"
_BASE = RunConfig(
    model="demo_resnet",
    data="digits-on-photos",
    num_modules=4,
    cuts=("layer1.0", "layer1.1", "layer2.0"),
    epochs=8,
    batch_size=64,
    learning_rate=0.2,
    schedule="cosine",
    warmup_epochs=1.0,
    weight_decay=5e-4,
    reconstruction_weight=None,
    task_weight=1.0,
)
_CONTROL_NOTE = "the control: InfoPro's task head alone, lest a stronger head be taken for reconstruction"


def _recipe(name: str, config: RunConfig, *, notes: tuple[str, ...] = ()) -> Recipe:
    return Recipe(name=f"digits-demo-{name}", config=config, published=None, source=_SOURCE, notes=notes)


RECIPES: tuple[Recipe, ...] = (
    _recipe("end-to-end", replace(_BASE, objective="end-to-end", num_modules=1, cuts=None)),
    _recipe("k4-greedy", replace(_BASE, objective="greedy")),
    _recipe("k4-dgl", replace(_BASE, objective="dgl")),
    _recipe(
        "k4-no-reconstruction",
        replace(_BASE, objective="infopro-softmax", task_head="2c2f"),
        notes=(_CONTROL_NOTE,),
    ),
    _recipe(
        "k4-infopro-softmax",
        replace(
            _BASE, objective="infopro-softmax", task_head="2c2f", decoder="half", reconstruction_weight=0.3
        ),
    ),
    _recipe(
        "k4-infopro-contrast",
        replace(
            _BASE, objective="infopro-contrast", task_head="2c2f", decoder="half", reconstruction_weight=0.3
        ),
    ),
)
