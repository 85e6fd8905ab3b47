"""ImageNet, K = 2, cut where the modules' memory is equal: Table 4. `data` is the folder of the images."""

from __future__ import annotations

from dataclasses import dataclass, replace

from infopro.recipes._cells import SOURCE, cut_names, end_to_end
from infopro.recipes._config import RunConfig
from infopro.recipes._recipe import Published, Recipe

__all__ = ["RECIPES"]

_BASE = RunConfig(
    data="imagenet",
    image_size=224,
    objective="infopro-softmax",
    num_modules=2,
    balance="memory",
    epochs=90,
    batch_size=1024,
    learning_rate=0.4,
    warmup_epochs=0.0,
)
_RESNEXT_NOTE = (
    "Table 4 has batch 512, the published command 1024: the learning rate for 512 is not published"
)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One network of Table 4: test errors are (top-1, top-5) in %, memory is GB per GPU."""

    network: str
    model: str
    block: int  # of the second stage, the first module's last
    lambdas: tuple[float, float]  # reconstruction, task
    end_to_end: tuple[float, float, float]  # top-1, top-5, memory
    infopro: tuple[float, float, float]
    batch_size: int = 1024
    notes: tuple[str, ...] = ()


_TABLE_4 = (
    _Row(
        network="resnet101",
        model="torchvision/resnet101",
        block=0,
        lambdas=(5, 0.75),
        end_to_end=(22.03, 5.93, 19.71),
        infopro=(21.85, 5.89, 12.06),
    ),
    _Row(
        network="resnet152",
        model="torchvision/resnet152",
        block=5,
        lambdas=(5, 1),
        end_to_end=(21.60, 5.92, 26.29),
        infopro=(21.45, 5.84, 15.53),
    ),
    _Row(
        network="resnext101-32x8d",
        model="torchvision/resnext101_32x8d",
        block=2,
        lambdas=(5, 0.75),
        end_to_end=(20.64, 5.40, 19.22),
        infopro=(20.35, 5.28, 11.55),
        batch_size=512,
        notes=(_RESNEXT_NOTE,),
    ),
)


def _recipes(row: _Row) -> tuple[Recipe, Recipe]:
    base = replace(_BASE, model=row.model, batch_size=row.batch_size)
    reconstruction, task = row.lambdas
    local = replace(
        base,
        cuts=cut_names({2: ((2, row.block),)})[2],
        reconstruction_weight=reconstruction,
        task_weight=task,
    )
    balanced = Recipe(
        name=f"imagenet-{row.network}-k2-balanced-infopro-softmax",
        config=local,
        published=_published(row.infopro),
        source=SOURCE,
        notes=row.notes,
    )
    plain = end_to_end(f"imagenet-{row.network}", base, _published(row.end_to_end), notes=row.notes)
    return plain, balanced


def _published(numbers: tuple[float, float, float]) -> Published:
    top1, top5, memory_gb = numbers
    return Published(
        test_error=top1, standard_deviation=None, table="Table 4", memory_gb=memory_gb, top5_error=top5
    )


RECIPES: tuple[Recipe, ...] = tuple(recipe for row in _TABLE_4 for recipe in _recipes(row))
