"""What to do first on a GPU: groups of jobs in the order of their worth, with a guess of their seconds.

Every seed's run is a job; what was finished is not done again, so one list serves every session.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpu_jobs import EXECUTIONS, Job

from infopro import recipes

__all__ = ["GROUPS", "measurements", "priorities"]

GROUPS = {
    "speed": "a step of ResNet-32 at K = 4 that is eager, compiled, graphed, random images",
    "memory": "Table 3: memory and time of ResNet-110; checkpointing; plan against peak",
    "imagenet": "Table 4: memory and time at 224x224, random images",
    "cityscapes": "Table 5: memory and time of DeepLabV3-R101, random images",
    "resnet32": "Table 2: ResNet-32, the first seed of all 17 cells",
    "precision": "ResNet-32, K = 4, in float32: that the precision does not change the error",
    "resnet110": "Table 3: the errors of end to end and InfoPro*, K = 2, 3, 4, the first seed",
    "step": "memory against time of every way to save memory: benchmarks/step.py",
    "seeds": "the further seeds of ResNet-32 and ResNet-110",
    "search": "softmax's λ, which are not published, on images held out of the training set",
    "rest": "Table 2: ResNet-110 and DenseNet-BC at equal depth, the first seed",
}
_NUM_MODULES = (4, 16, 8, 2)
_OBJECTIVES = ("infopro-contrast", "infopro-softmax", "dgl", "greedy")
_GPUS = {"imagenet": 8, "cityscapes": 2}  # of the paper, which share a batch out
_RESNET32 = 150.0  # seconds of a run alone, by the target of 3 minutes: a guess until it was measured
_RESNET110 = 450.0
_BALANCED = [f"cifar10-resnet110-k{k}-balanced-infopro-contrast" for k in (2, 3, 4)]
_CHECK = "cifar10-resnet32-k4-infopro-contrast"
_SEARCHED = ([1.0, 1.0], [5.0, 5.0], [20.0, 20.0])  # λ1 of the first and the last module


def priorities(*, seeds: int, **options: Any) -> Iterator[Job]:
    """All jobs, most valuable first.

    Args:
        seeds: of every run.
        options: of training jobs: precision, execution.
    """
    yield from measurements()
    yield from _runs("resnet32", resnet32(), [0], _RESNET32, options)
    yield Job(kind="train", recipe=_CHECK, group="precision", estimate=2 * _RESNET32, precision="float32")
    yield from _runs("resnet110", resnet110(), [0], _RESNET110, options)
    yield from _step()
    for seed in range(1, seeds):
        yield from _runs("seeds", resnet32(), [seed], _RESNET32, options)
        yield from _runs("seeds", resnet110(), [seed], _RESNET110, options)
    yield from _search(options)
    rest = [n for p in ("cifar10-resnet110-k*", "cifar10-densenet*") for n in recipes.list_recipes(p)]
    published = [n for n in rest if recipes.load(n).published and n not in _BALANCED]
    yield from _runs("rest", published, [0], _RESNET110, options)


def resnet32() -> list[str]:
    """The 17 cells of Table 2's first part: those where methods differ most come first."""
    cells = [f"cifar10-resnet32-k{k}-{name}" for k in _NUM_MODULES for name in _OBJECTIVES]
    return ["cifar10-resnet32-end-to-end", *cells]


def resnet110() -> list[str]:
    """Table 3's rows that are trained."""
    return ["cifar10-resnet110-end-to-end", *_BALANCED]


def _runs(
    group: str, names: list[str], seeds: list[int], estimate: float, options: dict[str, Any]
) -> Iterator[Job]:
    for seed in seeds:
        for name in names:
            yield Job(kind="train", recipe=name, seed=seed, group=group, estimate=estimate, **options)


def measurements() -> Iterator[Job]:
    """One step each of what the paper prints the memory of."""
    for execution in EXECUTIONS:
        yield Job(
            kind="measure",
            recipe=_CHECK,
            group="speed",
            execution=execution,
            estimate=30.0 if execution == "eager" else 150.0,
        )
    whole = "cifar10-resnet110-end-to-end"
    for name in (whole, *_BALANCED):
        yield _measured("memory", name)
    yield _measured("memory", whole, checkpoint="blocks")
    yield _measured("memory", _BALANCED[-1], checkpoint="blocks")
    whole = "stl10-resnet110-end-to-end"
    for name in (whole, *recipes.list_recipes("stl10-*-balanced-*")):
        yield _measured("memory", name)
    yield _measured("memory", whole, checkpoint="blocks")
    for name in recipes.list_recipes("imagenet-*"):
        batch_size = recipes.load(name).config.batch_size // _GPUS["imagenet"]
        yield _measured("imagenet", name, batch_size=batch_size)
    for name in _table_5():
        batch_size = recipes.load(name).config.batch_size // _GPUS["cityscapes"]
        yield _measured("cityscapes", name, batch_size=batch_size)


def _table_5() -> list[str]:
    """What Table 5 prints the memory of, one row for each network, batch and crop."""
    kept: dict[tuple[Any, ...], str] = {}
    for name in recipes.list_recipes("cityscapes-*"):
        recipe = recipes.load(name)
        config = recipe.config
        if recipe.published and recipe.published.memory_gb:
            kept.setdefault((config.objective, config.batch_size, config.crop), name)
    return list(kept.values())


def _measured(group: str, recipe: str, **changed: Any) -> Job:
    common: dict[str, Any] = {"kind": "measure", "precision": "tf32", "estimate": 30.0}
    return Job(recipe=recipe, group=group, changed=changed, **common)


def _step() -> Iterator[Job]:
    command = ["benchmarks/step.py", "--device=cuda", "--rounds=3", "--output={output}/step.csv"]
    for network in ("resnet110", "resnet101"):
        words = [*command, f"--networks={network}"]
        changed = {"command": words}
        yield Job(kind="script", recipe=f"step-{network}", group="step", changed=changed, estimate=240.0)


def _search(options: dict[str, Any]) -> Iterator[Job]:
    for num_modules in _NUM_MODULES:
        name = f"cifar10-resnet32-k{num_modules}-infopro-softmax"
        for weights in _SEARCHED:
            changed = {"hold_out": 0.1, "reconstruction_weight": weights}
            common: dict[str, Any] = {"group": "search", "estimate": _RESNET32, **options}
            yield Job(kind="train", recipe=name, changed=changed, **common)
