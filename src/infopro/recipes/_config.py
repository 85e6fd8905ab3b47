"""A run's configuration: the only configuration object; it stops at the command line and the recipes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal, get_type_hints

from infopro.errors import BadConfiguration, InfoProError
from infopro.objectives import Objective, from_name
from infopro.recipes._kinds import is_of_kind

__all__ = ["RunConfig", "build_objective", "check", "problems"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that decides what a training run computes; the defaults are InfoPro's for CIFAR-10.

    The defaults are the published cell ResNet-32, K = 4, contrast (Wang et al., ICLR 2021, arXiv 2101.10832).

    Example:
        >>> RunConfig(objective="greedy", epochs=3).batch_size
        1024
    """

    model: str = "cifar_resnet32"  # a name of `infopro list models`
    data: str = "cifar10"  # a name of `infopro list data`, a folder of class folders, or an .npz file
    objective: str = "infopro-contrast"  # a name of `infopro list objectives`
    num_modules: int = 4  # K, the number of gradient-isolated modules; 1 for end to end
    cuts: tuple[str, ...] | None = None  # names of the K - 1 blocks that end a module; null: by `balance`
    balance: Literal["depth", "memory", "time"] = "depth"  # what the modules share equally without `cuts`
    reconstruction_weight: tuple[float, ...] | float | None = (6.0, 1.0)  # λ1 as λ2; null: no decoder
    task_weight: tuple[float, ...] | float = (0.0, 2.0)  # λ2: (first, last) of K - 1, or one for all
    task_head: str = "auto"  # a name of `infopro list heads`; auto: the objective's own
    decoder: str = "auto"  # a name of `infopro list decoders`; auto: the objective's own
    temperature: float = 0.07  # of the contrastive loss
    anchors: int = 1024  # pixels of a batch that the contrastive loss compares, where masks are learnt
    auxiliary_weight: float | None = None  # of a network's further outputs in its loss; null: the task's own
    class_weights: tuple[float, ...] | None = None  # of each class in the loss of masks
    hard_pixels: float | None = None  # masks: train on pixels below this probability only; null: on all
    epochs: int = 160  # passes over the training set
    batch_size: int = 1024  # images per step
    optimizer: Literal["sgd", "adamw"] = "sgd"  # one for the network and the heads
    learning_rate: float = 0.8  # highest of the schedule
    momentum: float = 0.9  # SGD's
    nesterov: bool = True  # SGD's
    weight_decay: float = 1e-4  # on every parameter, BatchNorm's included
    schedule: Literal["paper", "cosine", "poly", "constant"] = "paper"  # paper: InfoPro's, by epochs
    warmup_epochs: float = 10.0  # in which the learning rate rises
    clip_gradients: float | None = None  # largest L2 norm of a module's gradients, heads included; null: any
    on_divergence: Literal["stop", "skip", "reload"] = "stop"  # what follows a loss that is not finite
    on_spike: Literal["warn", "stop", "reload"] = "warn"  # what follows a loss that leaps
    average_weights: float | None = None  # decay (0 to 1) of averaged weights, which are tested; null: none
    deterministic: bool = False  # refuse what may give other bits another time
    precision: Literal["float32", "bfloat16"] = "float32"  # of the forward pass; parameters stay float32
    checkpoint: Literal["none", "blocks", "everything"] = "none"  # what runs twice, and is not kept meanwhile
    compile: bool = False  # every module with its heads and loss by torch.compile
    pretrained: bool = False  # the network, or its backbone, begins with weights of its library
    initial_weights: str | None = None  # a run, or a checkpoint of one, whose weights the network begins with
    image_size: tuple[int, int] | int | None = None  # side, or rows and columns; null: the data set's own
    crop: tuple[int, int] | None = None  # rows and columns of training crops with masks; null: whole images
    scale: tuple[float, float] | None = None  # least, most resizing before a crop; null: the data set's own
    hold_out: float | None = None  # share of the training images that stands in for the test images
    limit_train: int | None = None  # images of a class-balanced part of the training set; null: all
    limit_test: int | None = None  # likewise for the test set: such an error compares with no published one
    on_bad_image: Literal["error", "skip"] = "error"  # what becomes of image files that cannot be read
    seed: int = 0  # of initialisation, order and augmentation
    parallel: Literal["none", "pipeline", "data", "cached", "decoupled"] = "none"  # how the modules are run
    synchronise_batch_norm: bool = False  # BatchNorm over the whole batch where several processes share it
    gather_contrast: bool = False  # contrastive loss over the whole batch where several processes share it
    views: int = 1  # cached: augmented copies whose features are kept; 0: one, unaugmented
    replay: int = 4  # decoupled: batches that a module keeps to train on while it waits for new ones


def build_objective(config: RunConfig) -> Objective:
    """The objective that a configuration names, with those of its options that this objective has.

    "auto" leaves the objective's own choice: Greedy's head is another than InfoPro's.

    Raises:
        UnknownName: no such objective or head.
        BadConfiguration: an option out of the objective's range.

    Example:
        >>> build_objective(RunConfig(objective="greedy")).describe()
        {'name': 'greedy', 'task_head': '0c1f'}
    """
    known = {field.name for field in fields(from_name(config.objective))}
    options = {field.name: getattr(config, field.name) for field in fields(config) if field.name in known}
    return from_name(config.objective, **{name: value for name, value in options.items() if value != "auto"})


def check(config: RunConfig) -> None:
    """Raise one BadConfiguration that lists every problem of a configuration, if it has any.

    Example:
        >>> check(RunConfig(epochs=0, batch_size=0))
        Traceback (most recent call last):
        infopro.errors.BadConfiguration: 2 problems: (1) epochs is 0, allowed: 1 or more; (2) ...
    """
    found = problems(config)
    if len(found) == 1:
        raise BadConfiguration(found[0])
    if found:
        numbered = "; ".join(f"({number}) {problem}" for number, problem in enumerate(found, start=1))
        raise BadConfiguration(f"{len(found)} problems: {numbered}")


def problems(config: RunConfig) -> list[str]:
    """Everything wrong with a configuration by itself: ranges, contradictions, the objective's own options.

    What depends on the network or the data (cuts that do not exist, image sizes) shows when those are built.
    """
    wrong = {name: kind for name, kind in _kinds().items() if not is_of_kind(getattr(config, name), kind)}
    found = [*_kind_problems(config, wrong), *_range_problems(config, besides=wrong)]
    if wrong:
        return found  # whatever else holds, it cannot be told
    return [
        *found,
        *_cut_problems(config),
        *_objective_problems(config),
        *_parallel_problems(config),
    ]


def _at_least(least: int) -> tuple[str, Callable[[Any], bool]]:
    return f"{least} or more", lambda value: math.isfinite(value) and value >= least


def _one_of(*names: str) -> tuple[str, Callable[[Any], bool]]:
    return ", ".join(names), lambda value: value in names


_POSITIVE = "a number above 0", lambda value: math.isfinite(value) and value > 0
_ALLOWED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "num_modules": _at_least(1),
    "parallel": _one_of("none", "pipeline", "data", "cached", "decoupled"),
    "views": _at_least(0),
    "replay": _at_least(1),
    "balance": _one_of("depth", "memory", "time"),
    "epochs": _at_least(1),
    "batch_size": _at_least(1),
    "optimizer": _one_of("sgd", "adamw"),
    "learning_rate": _POSITIVE,
    "momentum": ("0 or more and less than 1", lambda value: 0 <= value < 1),
    "weight_decay": _at_least(0),
    "schedule": _one_of("paper", "cosine", "poly", "constant"),
    "warmup_epochs": _at_least(0),
    "clip_gradients": ("a number above 0, or null", lambda v: v is None or (math.isfinite(v) and v > 0)),
    "on_divergence": _one_of("stop", "skip", "reload"),
    "on_spike": _one_of("warn", "stop", "reload"),
    "average_weights": ("between 0 and 1, or null", lambda value: value is None or 0 < value < 1),
    "precision": _one_of("float32", "bfloat16"),
    "checkpoint": _one_of("none", "blocks", "everything"),
    "anchors": _at_least(2),
    "auxiliary_weight": ("0 or more, or null", lambda value: value is None or value >= 0),
    "class_weights": ("each 0 or more, one above, or null", lambda v: v is None or min(v) >= 0 < max(v)),
    "hard_pixels": ("between 0 and 1, or null", lambda value: value is None or 0 < value < 1),
    "image_size": (
        "1 or more, or rows and columns, or null",
        lambda value: value is None or _are_sizes(value),
    ),
    "crop": ("rows and columns, 1 or more, or null", lambda value: value is None or _are_sizes(value)),
    "scale": ("0 < least <= most, or null", lambda value: value is None or 0 < value[0] <= value[1]),
    "hold_out": ("between 0 and 1, or null", lambda value: value is None or 0 < value < 1),
    "limit_train": ("1 or more, or null", lambda value: value is None or value >= 1),
    "limit_test": ("1 or more, or null", lambda value: value is None or value >= 1),
    "on_bad_image": _one_of("error", "skip"),
    "seed": ("0 to 2**63 - 1", lambda value: 0 <= value < 2**63),
}


def _are_sizes(value: Any) -> bool:
    return all(side >= 1 for side in (value if isinstance(value, tuple) else (value,)))


@cache
def _kinds() -> dict[str, Any]:
    return get_type_hints(RunConfig)


def _kind_problems(config: RunConfig, wrong: Collection[str]) -> Iterator[str]:
    written = {field.name: str(field.type) for field in fields(RunConfig)}
    for name in wrong:
        allowed = _ALLOWED[name][0] if name in _ALLOWED else written[name].replace("None", "null")
        yield f"{name} is {_shortened(getattr(config, name))}, allowed: {allowed}"


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _range_problems(config: RunConfig, besides: Collection[str]) -> Iterator[str]:
    for name, (allowed, holds) in _ALLOWED.items():
        value = getattr(config, name)
        if name not in besides and not holds(value):
            yield f"{name} is {_shortened(value)}, allowed: {allowed}"
    if "batch_size" not in besides and config.objective != "end-to-end" and config.batch_size == 1:
        yield "batch_size is 1: heads normalise or compare the images of a batch, allowed: 2 or more"


def _cut_problems(config: RunConfig) -> Iterator[str]:
    if config.cuts is None:
        return
    if len(config.cuts) + 1 != config.num_modules:
        yield (
            f"{len(config.cuts)} cuts make {len(config.cuts) + 1} modules but num_modules is "
            f"{config.num_modules}: change one of them, or set cuts to null to have them chosen"
        )
    repeated = sorted({cut for cut in config.cuts if config.cuts.count(cut) > 1})
    if repeated:
        yield f"cuts name a block twice: {', '.join(map(_printable, repeated))}"


def _printable(name: str) -> str:
    return name if name.isprintable() else repr(name)


def _objective_problems(config: RunConfig) -> Iterator[str]:
    try:
        objective = build_objective(config)
    except InfoProError as error:
        yield str(error)
        return
    if objective.num_modules not in (None, config.num_modules):
        allowed = f"{objective.num_modules} for {config.objective}"
        yield f"num_modules is {config.num_modules}, allowed: {allowed}, with cuts null"
    if hasattr(objective, "task_weight") and config.num_modules > 1:
        yield from _idle_module_problems(config)


def _parallel_problems(config: RunConfig) -> Iterator[str]:
    """Options that nothing would read."""
    readers = {"views": "cached", "replay": "decoupled"}
    for name, reader in readers.items():
        value = getattr(config, name)
        if value != getattr(RunConfig, name) and config.parallel != reader:
            yield f"{name} is {value} but parallel is {config.parallel!r}, allowed with: {reader}"
    if config.pretrained and config.initial_weights is not None:
        yield "pretrained and initial_weights are both set, allowed: one of them"
    if config.deterministic and config.parallel == "decoupled":
        yield "deterministic is set but parallel is 'decoupled', whose runs never are, allowed: any other"
    if config.compile and config.parallel != "none":
        yield f"compile is set but parallel is {config.parallel!r}, allowed with: none"
    if config.num_modules == 1 and config.parallel in ("pipeline", "cached", "decoupled"):
        yield f"parallel is {config.parallel!r} but num_modules is 1, allowed: none, data"
    if config.average_weights is not None and config.parallel in ("cached", "decoupled"):
        yield f"average_weights is set but parallel is {config.parallel!r}, allowed: none, pipeline, data"
    for name, value in {"on_divergence": config.on_divergence, "on_spike": config.on_spike}.items():
        if value in ("skip", "reload") and config.parallel != "none":
            yield f"{name} is {value!r} but parallel is {config.parallel!r}, allowed with: none"
    for name in ("synchronise_batch_norm", "gather_contrast"):
        # one process sees the whole batch anyway: it may go on with a run of several
        if getattr(config, name) and config.parallel in ("cached", "decoupled"):
            yield f"{name} is set but parallel is {config.parallel!r}, allowed: none, pipeline, data"


def _idle_module_problems(config: RunConfig) -> Iterator[str]:
    """A module whose weights are both 0 is never trained; of K = 2 modules only the first has weights."""
    ends = {"first": 0} if config.num_modules == 2 else {"first": 0, "last": -1}
    weights = (config.reconstruction_weight or 0.0, config.task_weight)
    for word, end in ends.items():
        if not any(weight[end] if isinstance(weight, tuple) else weight for weight in weights):
            yield (
                f"reconstruction_weight and task_weight are both 0 for the {word} local module, "
                "which would not be trained: raise one of them"
            )
