"""Proves, before the first step, that the parts in a row compute what the network computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from infopro.errors import NotReplayable
from infopro.splitting.live import run_live
from infopro.splitting.part import Flow, Part, start
from infopro.splitting.program import Program, resized
from infopro.splitting.reach import parameters_behind
from infopro.splitting.record import undisturbed

__all__ = ["verify", "verify_live"]

_SEED = 0
_BATCH_SIZES = (2, 4)  # one that was recorded, one that was not
_ROUNDING = "detached, the modules round in another way: some kernels are chosen by what needs a gradient"


def verify(model: nn.Module, parts: Sequence[Part], program: Program, inputs: tuple[Any, ...]) -> list[str]:
    """Compare parts and network under one seed; returns notes, raises where they differ.

    Compared bit for bit: the result and every buffer afterwards; to rounding: the gradient of every parameter
    through the connected parts. And through the detached parts no gradient may reach an earlier one; they may
    round in another way than the network, if connected they do not.

    Raises:
        NotReplayable: with all differences found.
    """
    problems: list[str] = []
    notes: set[str] = set()
    for batch_size in _BATCH_SIZES:
        sample = resized(inputs, batch_size)
        expected = _run_model(model, sample)
        detached = _Detached(parts)
        outcome = _run_parts(model, parts, program, sample, detached)
        notes |= {f"module {k + 1} writes in place on the tensor it receives" for k in detached.written}
        problems += [f"what module {k + 1} would learn from is made before it" for k in detached.untrained]
        found = exact = _differences(expected, outcome)
        if exact or batch_size == _BATCH_SIZES[0]:
            connected = _differences(expected, _run_parts(model, parts, program, sample, _Connected()))
            found = connected or _differences(expected, outcome, to_rounding=True)
        notes |= {_ROUNDING} if exact and not found else set()
        notes |= _note_on_unreached(model, expected, detached.reached)
        problems += [f"{difference} (batch size {batch_size})" for difference in found]
    if problems:
        raise NotReplayable(
            "the recorded parts do not reproduce the network's forward",
            got="; ".join(dict.fromkeys(problems)),
            remedy="choose other cuts, or train end to end",
        )
    return sorted(notes)


def verify_live(
    model: nn.Module, parts: Sequence[Part], cuts: Sequence[str], inputs: tuple[Any, ...]
) -> list[str]:
    """Compare one live run with the network, to rounding; returns the differences."""
    sample = resized(inputs, _BATCH_SIZES[0])
    expected = _run_model(model, sample)
    with undisturbed(model):
        torch.manual_seed(_SEED)
        result = _tensors(run_live(model, sample, cuts=cuts, learn=lambda stage, features: None))
        return _differences(expected, _outcome_detached(model, parts, result), to_rounding=True)


@dataclass
class _Outcome:
    result: list[Tensor]
    buffers: list[Tensor]
    gradients: dict[int, Tensor | None]  # by the id of the parameter; those that are to be compared
    leaks: bool = False


class _Connected:
    """Parts in one graph: their gradients must be the network's."""

    def step(self, index: int, part: Part, flow: Flow) -> Flow:
        return part(flow)  # type: ignore[no-any-return]

    def outcome(self, model: nn.Module, result: list[Tensor]) -> _Outcome:
        return _outcome(model, result)


class _Detached:
    """Parts as they are trained: nothing may flow back. Writes on what was received are noted."""

    def __init__(self, parts: Sequence[Part]):
        self.parts = parts
        self.written: set[int] = set()
        self.untrained: set[int] = set()
        self.reached: set[int] = set()  # parameters, by id, that some module's loss may train

    def step(self, index: int, part: Part, flow: Flow) -> Flow:
        flow = flow.detached()
        versions = {number: tensor._version for number, tensor in flow.values.items()}
        following: Flow = part(flow)
        if any(flow.values[number]._version != version for number, version in versions.items()):
            self.written.add(index)
        if part is not self.parts[-1]:
            boundary = part.boundary(following)
            self.untrained |= set() if boundary.requires_grad else {index}
            self.reached |= parameters_behind([boundary])
        return following

    def outcome(self, model: nn.Module, result: list[Tensor]) -> _Outcome:
        self.reached |= parameters_behind(result)
        return _outcome_detached(model, self.parts, result)


def _run_model(model: nn.Module, sample: tuple[Any, ...]) -> _Outcome:
    with undisturbed(model):
        torch.manual_seed(_SEED)
        return _outcome(model, _tensors(model(*sample)))


def _run_parts(
    model: nn.Module,
    parts: Sequence[Part],
    program: Program,
    sample: tuple[Any, ...],
    manner: _Connected | _Detached,
) -> _Outcome:
    with undisturbed(model):
        torch.manual_seed(_SEED)
        flow = start(program, sample)
        for index, part in enumerate(parts):
            flow = manner.step(index, part, flow)
        return manner.outcome(model, _tensors(parts[-1].result(flow)))


def _outcome(model: nn.Module, result: list[Tensor]) -> _Outcome:
    return _Outcome(_copies(result), _copies(model.buffers()), _gradients(result, list(model.parameters())))


def _outcome_detached(model: nn.Module, parts: Sequence[Part], result: list[Tensor]) -> _Outcome:
    """The last part's gradients are the network's, and no earlier part gets any."""
    last = {id(p): p for p in parts[-1].parameters()}
    earlier = {id(p): p for part in parts[:-1] for p in part.parameters()}
    own = _gradients(result, [p for p in last.values() if id(p) not in earlier])
    others = _gradients(result, [p for p in earlier.values() if id(p) not in last])
    leaks = any(gradient is not None for gradient in others.values())
    return _Outcome(_copies(result), _copies(model.buffers()), own, leaks)


def _note_on_unreached(model: nn.Module, expected: _Outcome, reached: set[int]) -> set[str]:
    """What the network trains and no module does: it leads to carried tensors only, such as skips."""
    trained = {key for key, gradient in expected.gradients.items() if gradient is not None}
    missed = trained - reached
    names = [name for name, p in model.named_parameters() if p.requires_grad and id(p) in missed]
    first = f"{len(names)} parameters are trained by no module, the first is {names[0]}" if names else ""
    return {f"{first}: they lead only to tensors that cross a cut beside the main one"} if names else set()


def _tensors(result: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]


def _copies(tensors: Any) -> list[Tensor]:
    return [t.detach().clone() for t in tensors]


def _gradients(result: list[Tensor], parameters: list[nn.Parameter]) -> dict[int, Tensor | None]:
    loss = sum((t.float().square().mean() for t in result if t.requires_grad), torch.zeros(()))
    wanted = [p for p in parameters if p.requires_grad]
    if not wanted or not loss.requires_grad:
        return {}
    found = torch.autograd.grad(loss, wanted, allow_unused=True, retain_graph=True)
    return {id(p): gradient for p, gradient in zip(wanted, found, strict=True)}


def _differences(expected: _Outcome, found: _Outcome, *, to_rounding: bool = False) -> list[str]:
    problems = []
    if not _equal(expected.result, found.result, to_rounding):
        problems.append("the result differs")
    if not _equal(expected.buffers, found.buffers, to_rounding):
        problems.append("buffers such as BatchNorm statistics differ")
    if any(not _close(expected.gradients.get(p), gradient) for p, gradient in found.gradients.items()):
        problems.append("gradients differ, as where a custom autograd function stands between blocks")
    if found.leaks:
        problems.append("a gradient of the last module reaches an earlier one")
    return problems


def _equal(left: list[Tensor], right: list[Tensor], to_rounding: bool) -> bool:
    same = _close if to_rounding else torch.equal
    pairs = [(a.nan_to_num(), b.nan_to_num()) for a, b in zip(left, right, strict=False)]
    return len(left) == len(right) and all(a.shape == b.shape and same(a, b) for a, b in pairs)


def _close(left: Tensor | None, right: Tensor | None) -> bool:
    if left is None or right is None:
        return left is right
    return torch.equal(left, right) or torch.allclose(left, right, rtol=1e-4, atol=1e-6)
