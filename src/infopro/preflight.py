"""`preflight`: every problem of a network, a split and a batch in one list, each with its remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from infopro.check import isolation_check, parity_check
from infopro.errors import InfoProError
from infopro.local import LocalModel
from infopro.localization import localize
from infopro.memory.choose import Balance, Granularity
from infopro.memory.output_task import task_for
from infopro.objectives import Greedy, Objective
from infopro.splitting import as_inputs
from infopro.splitting.inputs import check_network
from infopro.splitting.program import batch_size_of, resized
from infopro.splitting.record import undisturbed
from infopro.splitting.survey import survey
from infopro.tasks import Classification, Task

__all__ = ["Preflight", "Problem", "preflight"]

Severity = Literal["error", "note"]
_REMEDIES = {  # of what a split notes: how the note begins or reads -> what to do
    "runs live": "train in one process, or move what the reason names into a block",
    "writes in place": "nothing in one process; before a pipeline, cut behind the block that writes",
    "used by several modules": "keep them in one module by other cuts, or accept that each loss trains them",
    "branches on values of its inputs": "nothing; a batch on a new branch takes a moment longer",
    "neither parameters nor buffers": "register them as buffers if they change or must follow the device",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong ("error") or that one should know ("note")."""

    severity: Severity
    what: str
    remedy: str

    def __str__(self) -> str:
        return (
            f"{self.severity}: {self.what}; {self.remedy}" if self.remedy else f"{self.severity}: {self.what}"
        )


@dataclass(frozen=True)
class Preflight:
    """All that was found; true if nothing stands in the way of training."""

    problems: tuple[Problem, ...]
    cuts: tuple[str, ...]

    def __bool__(self) -> bool:
        return not any(problem.severity == "error" for problem in self.problems)

    def __str__(self) -> str:
        where = f"cuts: {', '.join(self.cuts)}" if self.cuts else "no cuts"
        verdict = "ready to train" if self else "not ready to train"
        return "\n".join([f"{verdict}; {where}", *map(str, self.problems)])


def preflight(
    model: nn.Module,
    example_input: Any,
    targets: Tensor | None = None,
    *,
    num_modules: int | None = None,
    cuts: Sequence[str] | None = None,
    balance: Balance = "memory",
    granularity: Granularity = "block",
    objective: Objective | None = None,
    task: Task | None = None,
) -> Preflight:
    """Try everything that training would do, and list what is wrong with its remedy instead of stopping
    at the first.

    Looked at: devices, dtypes and shapes; frozen parameters; modules called twice; BatchNorm with one
    image; where
    the cuts lie; whether forward can be replayed; in-place writes on what crosses a cut; parameters shared by
    modules; heads; whether the step is isolated, equals the reference, and trains every parameter.

    Args:
        targets: None: labels are made up.
        objective: Greedy's if none is given.
        task: None: cross-entropy of the network's output.

    Example:
        >>> import torch, infopro
        >>> model = infopro.models.cifar_resnet(20, 10)
        >>> found = infopro.preflight(model, torch.rand(2, 3, 32, 32), num_modules=3)
        >>> print(found)
        ready to train; cuts: layer1.1, layer2.0
    """
    inputs = as_inputs(example_input)
    found: list[Problem] = [*_about_parameters(model), *_about_batch(model, inputs)]
    if not _attempt(found, lambda: check_network(model, inputs)):
        return Preflight(tuple(found), ())
    found += _about_calls(model, inputs)
    with undisturbed(model), torch.no_grad():
        task = task or task_for(model(*resized(inputs, 2)), inputs[0])
    built: list[LocalModel] = []

    def build() -> None:
        built.append(
            localize(
                model,
                example_input,
                num_modules=num_modules,
                cuts=cuts,
                balance=balance,
                granularity=granularity,
                objective=objective or Greedy(),
                task=task,
            )
        )

    if not _attempt(found, build):
        return Preflight(tuple(found), ())
    found += _about_split(built[0])
    _attempt(found, lambda: found.extend(_about_step(built[0], inputs, _targets(inputs, targets, task))))
    return Preflight(tuple(found), built[0].split.cuts)


def _attempt(found: list[Problem], action: Callable[[], object]) -> bool:
    try:
        action()
    except InfoProError as error:
        found.append(Problem("error", str(error), ""))
        return False
    return True


def _about_parameters(model: nn.Module) -> Iterator[Problem]:
    parameters = list(model.named_parameters())
    frozen = [name for name, p in parameters if not p.requires_grad]
    if not parameters or len(frozen) == len(parameters):
        yield Problem(
            "error", "the network has no trainable parameter", "unfreeze some: requires_grad_(True)"
        )
    elif frozen:
        yield Problem(
            "note",
            f"{len(frozen)} parameters are frozen, {frozen[0]} the first",
            "unfreeze them if they should learn",
        )


def _about_batch(model: nn.Module, inputs: tuple[Any, ...]) -> Iterator[Problem]:
    norms = [name for name, m in model.named_modules() if isinstance(m, _BatchNorm)]
    if norms and batch_size_of(inputs) == 1:
        yield Problem(
            "error",
            f"BatchNorm ({norms[0]} and {len(norms) - 1} more) cannot learn from a batch of one",
            "pass two images or more, or replace BatchNorm",
        )


def _about_calls(model: nn.Module, inputs: tuple[Any, ...]) -> Iterator[Problem]:
    run = survey(model, inputs)
    for name, call in run.calls.items():
        weighted = next(model.get_submodule(name).parameters(recurse=False), None) is not None
        if call.count > 1 and weighted:
            yield Problem(
                "note",
                f"{name} is called {call.count} times in one forward",
                "no cut can lie behind it; between two of its calls a cut makes both modules train it",
            )


def _about_split(local: LocalModel) -> Iterator[Problem]:
    for note in local.split.notes:
        if "trained by no module" in note:  # the step that is tried names them
            continue
        yield Problem("note", note, next((how for what, how in _REMEDIES.items() if what in note), ""))
    for index, stage in enumerate(local.stages):
        if not any(p.requires_grad for p in stage.part.parameters()):
            yield Problem(
                "note",
                f"module {index + 1} is frozen: only its heads would learn",
                "unfreeze a parameter of it, or move the cut so that it joins another module",
            )


def _about_step(local: LocalModel, inputs: tuple[Any, ...], targets: Tensor) -> Iterator[Problem]:
    images = inputs if len(inputs) > 1 else inputs[0]
    isolation = isolation_check(local, images, targets)
    if isolation.leaks:
        stage, name = isolation.leaks[0]
        yield Problem(
            "error", f"the loss of module {stage + 1} reaches {name} of another module", "report this"
        )
    if isolation.untrained:
        names = ", ".join(isolation.untrained[:3])
        yield Problem(
            "note",
            f"{len(isolation.untrained)} parameters are reached by no loss: {names}",
            "freeze or remove them if that is meant; else cut elsewhere",
        )
    parity = parity_check(local, images, targets)
    if parity.differences:
        yield Problem(
            "error",
            f"the step differs from the reference, first in {parity.differences[0]}",
            "fix random draws that no seed controls, or pass record=False to localize",
        )


def _targets(inputs: tuple[Any, ...], targets: Tensor | None, task: Task) -> Tensor:
    if targets is not None:
        return targets
    if task.dense:
        return task.made_up_targets(inputs[0])
    size = batch_size_of(inputs)
    classes = task.num_classes if isinstance(task, Classification) else 1
    return torch.arange(size, device=inputs[0].device) % classes
