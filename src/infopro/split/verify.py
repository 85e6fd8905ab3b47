"""Proves, before the first step, that the parts in a row compute what the network computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from infopro.errors import NotSplittable
from infopro.split.part import Flow, Part, start
from infopro.split.program import Program, resized
from infopro.split.record import undisturbed

__all__ = ["verify"]

_SEED = 0
_BATCH_SIZES = (2, 4)  # one that was recorded, one that was not


def verify(model: nn.Module, parts: Sequence[Part], program: Program, inputs: tuple[Any, ...]) -> list[str]:
    """Compare parts and network under one seed; returns notes, raises where they differ.

    Compared bit for bit: the result and every buffer afterwards; to rounding: the gradient of every parameter
    through the connected parts. And through the detached parts no gradient may reach an earlier one.

    Raises:
        NotSplittable: with all differences found.
    """
    problems: list[str] = []
    written: set[int] = set()
    for batch_size in _BATCH_SIZES:
        sample = resized(inputs, batch_size)
        expected = _run_model(model, sample)
        connected = _run_parts(model, parts, program, sample, _Connected())
        detached = _Detached(parts)
        isolated = _run_parts(model, parts, program, sample, detached)
        found = [*_differences(expected, connected), *_differences(expected, isolated)]
        found += ["a gradient of the last module reaches an earlier one"] * detached.leaks
        problems += [f"{problem} (batch size {batch_size})" for problem in dict.fromkeys(found)]
        written |= detached.written
    if problems:
        raise NotSplittable(
            "the recorded parts do not reproduce the network's forward",
            got="; ".join(problems),
            remedy="choose other cuts, or train end to end",
        )
    return [f"module {k + 1} writes in place on the tensor it receives" for k in sorted(written)]


@dataclass
class _Outcome:
    result: list[Tensor]
    buffers: list[Tensor]
    gradients: list[Tensor | None] | None  # of all parameters; None where they are not to be compared


class _Connected:
    """Parts in one graph: their gradients must be the network's."""

    def step(self, index: int, part: Part, flow: Flow) -> Flow:
        return part(flow)  # type: ignore[no-any-return]

    def gradients(self, model: nn.Module, result: list[Tensor]) -> list[Tensor | None] | None:
        return _gradients(result, list(model.parameters()))


class _Detached:
    """Parts as they are trained: nothing may flow back, and who writes on what it received is noted."""

    def __init__(self, parts: Sequence[Part]):
        own = {id(p) for p in parts[-1].parameters()}
        self.earlier = [p for part in parts[:-1] for p in part.parameters() if id(p) not in own]
        self.written: set[int] = set()
        self.leaks = False

    def step(self, index: int, part: Part, flow: Flow) -> Flow:
        flow = flow.detached()
        versions = {number: tensor._version for number, tensor in flow.values.items()}
        following: Flow = part(flow)
        if any(flow.values[number]._version != version for number, version in versions.items()):
            self.written.add(index)
        return following

    def gradients(self, model: nn.Module, result: list[Tensor]) -> list[Tensor | None] | None:
        self.leaks = any(gradient is not None for gradient in _gradients(result, self.earlier))
        return None


def _run_model(model: nn.Module, sample: tuple[Any, ...]) -> _Outcome:
    with undisturbed(model):
        torch.manual_seed(_SEED)
        result = _tensors(model(*sample))
        gradients = _gradients(result, list(model.parameters()))
        return _Outcome(_copies(result), _copies(model.buffers()), gradients)


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
        result = _tensors(parts[-1].result(flow))
        gradients = manner.gradients(model, result)
        return _Outcome(_copies(result), _copies(model.buffers()), gradients)


def _tensors(result: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]


def _copies(tensors: Any) -> list[Tensor]:
    return [t.detach().clone() for t in tensors]


def _gradients(result: list[Tensor], parameters: list[nn.Parameter]) -> list[Tensor | None]:
    loss = sum((t.float().square().mean() for t in result if t.requires_grad), torch.zeros(()))
    wanted = [p for p in parameters if p.requires_grad]
    if not wanted or not loss.requires_grad:
        return []
    return list(torch.autograd.grad(loss, wanted, allow_unused=True, retain_graph=True))


def _differences(expected: _Outcome, found: _Outcome) -> list[str]:
    problems = []
    if not _equal(expected.result, found.result):
        problems.append("the result differs")
    if not _equal(expected.buffers, found.buffers):
        problems.append("buffers such as BatchNorm statistics differ")
    if found.gradients is not None and not _close(expected.gradients or [], found.gradients):
        problems.append("gradients differ, as where a custom autograd function stands between blocks")
    return problems


def _equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(_same(a, b) for a, b in zip(left, right, strict=True))


def _same(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and torch.equal(left.nan_to_num(), right.nan_to_num())


def _close(left: list[Tensor | None], right: list[Tensor | None]) -> bool:
    if len(left) != len(right):
        return False
    pairs = list(zip(left, right, strict=True))
    if any((a is None) != (b is None) for a, b in pairs):
        return False
    return all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in pairs if a is not None and b is not None
    )
