"""Cityscapes, DeepLabV3 with ResNet-101, K = 2: Table 5. An error is 100 - mIoU, whole images, one scale."""

from __future__ import annotations

from dataclasses import dataclass, replace

from infopro.recipes._cells import SOURCE, end_to_end
from infopro.recipes._config import RunConfig
from infopro.recipes._recipe import Published, Recipe

__all__ = ["RECIPES"]

TRAINING_IMAGES = 2975
_CUT = "backbone.layer3.12"  # 13 of 23 blocks
_PREFIX = "cityscapes-deeplabv3-resnet101"
_BASE = RunConfig(
    model="torchvision/deeplabv3_resnet101",
    data="cityscapes",
    pretrained=True,
    crop=(512, 1024),
    scale=(0.5, 2.0),
    num_modules=2,
    balance="memory",
    batch_size=8,
    learning_rate=0.01,
    nesterov=False,
    weight_decay=5e-4,
    schedule="poly",
    warmup_epochs=0.0,
    synchronise_batch_norm=True,
)
_DIFFERENCES = (
    "the published network is mmsegmentation's: a stem of three 3x3 convolutions (ResNet-101-v1c) and 512"
    " channels in its head; torchvision's has a 7x7 stem and 256 channels",
    "pretrained are torchvision's weights of ResNet-101; the paper's are of the v1c network",
    "whether crops are redrawn of which one class fills most, as mmsegmentation does, is not published: they"
    " are not",
)
_DGL = "of the DGL cell the cut and the auxiliary network are not published: the cut is InfoPro's"


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One row of Table 5: mIoU in % (single scale, multi-scale, and flipped), memory in GB per GPU."""

    objective: str
    name: str = ""  # what tells it from the other rows of its objective
    iterations: int = 40_000
    mean_iou: tuple[float, float, float]
    memory_gb: float | None
    batch_size: int = 8
    crop: tuple[int, int] = (512, 1024)
    learning_rate: float = 0.01
    lambdas: tuple[float, float] | None = None  # reconstruction, task
    notes: tuple[str, ...] = ()


_TABLE_5 = (
    _Row(objective="end-to-end", mean_iou=(79.12, 79.81, 80.02), memory_gb=19.43),
    _Row(
        objective="end-to-end",
        name="-60k",
        iterations=60_000,
        mean_iou=(79.32, 79.95, 80.07),
        memory_gb=19.43,
    ),
    _Row(objective="dgl", name="-k2", mean_iou=(78.15, 79.40, 79.56), memory_gb=None, notes=(_DGL,)),
    _Row(
        objective="infopro-softmax",
        name="-k2-balanced",
        mean_iou=(79.37, 80.53, 80.54),
        memory_gb=12.01,
        lambdas=(1.5, 1),
    ),
    _Row(
        objective="infopro-softmax",
        name="-k2-balanced-batch12",
        mean_iou=(79.99, 81.09, 81.20),
        memory_gb=16.62,
        batch_size=12,
        learning_rate=0.015,
        lambdas=(1, 0.1),
    ),
    _Row(
        objective="infopro-softmax",
        name="-k2-balanced-640x1280",
        mean_iou=(80.25, 81.33, 81.42),
        memory_gb=17.00,
        crop=(640, 1280),
        learning_rate=0.015,
        lambdas=(2, 1),
    ),
)


def _recipe(row: _Row) -> Recipe:
    steps = -(-TRAINING_IMAGES // row.batch_size)
    epochs = round(row.iterations / steps)
    config = replace(
        _BASE,
        objective=row.objective,
        batch_size=row.batch_size,
        crop=row.crop,
        learning_rate=row.learning_rate,
        epochs=epochs,
    )
    scores = " / ".join(f"{score:.2f}" for score in row.mean_iou)
    notes = (
        f"published mIoU, single scale / multi-scale / multi-scale and flipped: {scores} %",
        f"{epochs} epochs of {steps} batches: {epochs * steps:,} iterations; published: {row.iterations:,}",
        *row.notes,
        *_DIFFERENCES,
    )
    published = Published(
        test_error=round(100 - row.mean_iou[0], 2),
        standard_deviation=None,
        table="Table 5",
        memory_gb=row.memory_gb,
    )
    if row.objective == "end-to-end":
        return end_to_end(f"{_PREFIX}{row.name}", config, published, notes=notes)
    reconstruction, task = row.lambdas or (None, 1.0)
    local = replace(config, cuts=(_CUT,), reconstruction_weight=reconstruction, task_weight=task)
    name = f"{_PREFIX}{row.name}-{row.objective}"
    return Recipe(name=name, config=local, published=published, source=SOURCE, notes=notes)


RECIPES: tuple[Recipe, ...] = tuple(_recipe(row) for row in _TABLE_5)
