"""Predictions of all methods -> the drawn splits, the memory bars, the saved bytes of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from infopro.errors import InfoProError
from infopro.memory import StepMemory
from infopro.recipes import make_task
from infopro.report import DrawnSplit, StepBytes
from infopro.run_report.grouping import Method
from infopro.run_report.prediction import Prediction, predict, predict_checkpointed, predict_whole

__all__ = ["Costs", "costs_of"]

_COMPARED = (
    "model",
    "batch_size",
    "precision",
    "optimizer",
    "image_size",
    "crop",
)  # else bars do not compare


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What the page says of bytes and operations."""

    splits: tuple[DrawnSplit, ...] = ()
    memory: tuple[StepBytes, ...] = ()
    memory_note: str = ""
    saved_bytes: Mapping[str, int] = field(default_factory=dict)  # by method
    notes: tuple[str, ...] = ()


def costs_of(methods: Sequence[Method]) -> Costs:
    """Predict every method's step; what cannot be predicted is said in a note."""
    found: dict[str, Prediction] = {}
    notes = []
    for method in methods:
        try:
            found[method.name] = predict(method.config, method.cuts, **_shapes(method))
        except (InfoProError, RuntimeError) as error:  # a page without bytes is better than none
            notes.append(f"Memory and operations of {method.name} are not predicted: {error}.")
    known = [method for method in methods if method.name in found]
    return Costs(
        splits=_splits(known, found),
        memory=_memory(known, found),
        memory_note=_memory_note(known),
        saved_bytes={name: max(one.step.saved) for name, one in found.items()},
        notes=tuple(notes),
    )


def _shapes(method: Method) -> dict[str, Any]:
    record = method.runs[0].record
    if "image_shape" not in record:
        raise InfoProError("run.json does not say the images' shape (an earlier version wrote it)")
    shape, masks = tuple(record["image_shape"]), bool(record.get("has_masks"))
    task = make_task(
        method.config, num_classes=int(record["num_classes"]), has_masks=masks, image_shape=shape
    )
    return {"image_shape": shape, "task": task}


def _splits(methods: Sequence[Method], found: Mapping[str, Prediction]) -> tuple[DrawnSplit, ...]:
    """One per network, cuts and K, largest K first; with the heads of the method that has most of them."""
    best: dict[tuple[Any, ...], Method] = {}

    def heads(method: Method) -> int:
        return sum(stage.head_parameters for stage in found[method.name].stages)

    for method in methods:
        key = (method.config.num_modules, method.config.model, method.cuts)
        if method.cuts and (key not in best or heads(method) > heads(best[key])):
            best[key] = method
    largest_first = sorted(best.values(), key=lambda method: -method.config.num_modules)
    return tuple(DrawnSplit(of=m.name, stages=found[m.name].stages) for m in largest_first)


def _memory(methods: Sequence[Method], found: Mapping[str, Prediction]) -> tuple[StepBytes, ...]:
    """Every method, beside end to end with and without checkpointing of the first one's network."""
    if not methods:
        return ()
    config, shapes = replace(methods[0].config, checkpoint="none"), _shapes(methods[0])
    bars = [_bar(method.name, found[method.name].step) for method in methods]
    num_whole = sum(method.config.num_modules == 1 for method in methods)  # they come first
    again = predict_checkpointed(config, **shapes)
    if again is not None:
        bars.insert(num_whole, _bar("end to end, checkpointed", again))
    if not num_whole:
        bars.insert(0, _bar("end to end", predict_whole(config, **shapes)))
    return tuple(bars)


def _bar(name: str, step: StepMemory) -> StepBytes:
    return StepBytes(name=name, kinds={str(kind): size for kind, size in step.at_peak.items()})


def _memory_note(methods: Sequence[Method]) -> str:
    if not methods:
        return ""
    config = methods[0].config
    differing = [name for name in _COMPARED if len({getattr(m.config, name) for m in methods}) > 1]
    text = (
        f"Predicted, not measured: one step of {config.batch_size} images in {config.precision} with "
        f"{config.optimizer}, every tensor counted as on a CPU. Not counted: workspaces inside operations, "
        "the allocator's reserve, the device's own context."
    )
    if differing:
        text += f" The runs differ in {', '.join(differing)}: each bar is that of its own settings."
    return text
