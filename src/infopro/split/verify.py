"""Proves, before the first step, that the parts in a row compute what the network computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from infopro.errors import NotSplittable
from infopro.split.part import Part, start
from infopro.split.program import Program, resized
from infopro.split.record import undisturbed

__all__ = ["verify"]

_SEED = 0
_BATCH_SIZES = (2, 4)  # one that was recorded, one that was not


def verify(model: nn.Module, parts: Sequence[Part], program: Program, inputs: tuple[Any, ...]) -> list[str]:
    """Compare parts and network under one seed, in the network's mode; returns notes, raises where they differ.

    Compared bit for bit: the result, every buffer afterwards; to rounding: the gradient of every parameter
    that only the last part uses. And no gradient may reach an earlier part.

    Raises:
        NotSplittable: with all differences found.
    """
    problems: list[str] = []
    notes: list[str] = []
    shared = {id(p) for part in parts[:-1] for p in part.parameters()}
    last_only = [p for p in parts[-1].parameters() if id(p) not in shared]
    for batch_size in _BATCH_SIZES:
        sample = resized(inputs, batch_size)
        expected = _run_model(model, last_only, sample)
        found, written = _run_parts(model, parts, program, sample, last_only)
        problems += [f"{p} (batch size {batch_size})" for p in _differences(expected, found)]
        notes = [f"module {k + 1} writes in place on the tensor it receives" for k in written]
    if problems:
        raise NotSplittable(
            "the recorded parts do not reproduce the network's forward",
            got="; ".join(dict.fromkeys(problems)),
            remedy="choose other cuts, or train end to end",
        )
    return notes


_Outcome = tuple[list[Tensor], list[Tensor], list[Tensor | None], bool]


def _run_model(model: nn.Module, last_only: list[nn.Parameter], sample: tuple[Any, ...]) -> _Outcome:
    with undisturbed(model):
        torch.manual_seed(_SEED)
        result = _tensors(model(*sample))
        gradients = _gradients(result, last_only)
        return _copies(result), _copies(model.buffers()), gradients, False


def _run_parts(
    model: nn.Module,
    parts: Sequence[Part],
    program: Program,
    sample: tuple[Any, ...],
    last_only: list[nn.Parameter],
) -> tuple[_Outcome, list[int]]:
    written: list[int] = []
    with undisturbed(model):
        torch.manual_seed(_SEED)
        flow = start(program, sample)
        for index, part in enumerate(parts):
            flow = flow.detached()
            versions = {number: flow.values[number]._version for number in program.parts[index].needs}
            following = part(flow)
            if any(flow.values[number]._version != version for number, version in versions.items()):
                written.append(index)
            flow = following
        result = _tensors(parts[-1].result(flow))
        gradients = _gradients(result, last_only)
        own = {id(p) for p in parts[-1].parameters()}
        earlier = [p for part in parts[:-1] for p in part.parameters() if id(p) not in own]
        leaks = any(g is not None for g in _gradients(result, earlier))
        return (_copies(result), _copies(model.buffers()), gradients, leaks), written


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
    if not _equal(expected[0], found[0]):
        problems.append("the result differs")
    if not _equal(expected[1], found[1]):
        problems.append("buffers such as BatchNorm statistics differ")
    if not _close(expected[2], found[2]):
        problems.append("gradients of the last module differ")
    if found[3]:
        problems.append("a gradient of the last module reaches an earlier one")
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
