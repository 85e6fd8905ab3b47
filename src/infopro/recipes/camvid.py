"""CamVid at 144x192, DeepLabV3+ on ResNet-18 from random weights: what two CPU cores can train."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from infopro.recipes._config import RunConfig
from infopro.recipes._recipe import Recipe

__all__ = ["RECIPES"]

_SOURCE = "this package's benchmark; λ are those that InfoPro publishes for Cityscapes, K = 2"
_CUTS = {2: ("encoder.layer3.1",), 4: ("encoder.layer1.1", "encoder.layer2.1", "encoder.layer3.1")}
_BASE = RunConfig(
    model="smp/deeplabv3plus/resnet18",
    data="camvid",
    image_size=(144, 192),  # of 360x480
    crop=(96, 128),
    scale=(0.5, 2.0),
    epochs=12,
    batch_size=8,
    learning_rate=0.02,  # of 0.05, 0.02 and 0.01 the best for end to end on `camvid-val`
    precision="bfloat16",
    nesterov=False,
    weight_decay=5e-4,
    schedule="poly",
    warmup_epochs=1.0,
    reconstruction_weight=1.5,
    task_weight=1.0,
)
_METHODS = ("greedy", "dgl", "infopro-softmax", "infopro-contrast")


def _recipes() -> Iterator[Recipe]:
    whole = replace(_BASE, objective="end-to-end", num_modules=1, reconstruction_weight=None, task_weight=1.0)
    yield Recipe(name="camvid-end-to-end", config=whole, published=None, source=_SOURCE)
    for num_modules, cuts in _CUTS.items():
        for method in _METHODS:
            config = replace(_BASE, objective=method, num_modules=num_modules, cuts=cuts)
            if not method.startswith("infopro"):
                config = replace(config, reconstruction_weight=None)
            yield Recipe(
                name=f"camvid-k{num_modules}-{method}", config=config, published=None, source=_SOURCE
            )


RECIPES: tuple[Recipe, ...] = tuple(_recipes())
