"""A merged recording, cut into parts: pure data, no tensors and no modules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from infopro.errors import BadSplit
from infopro.split._values import Owned, value_numbers
from infopro.split.merge import merge
from infopro.split.record import Node, Recording, ancestors, record

__all__ = ["PartProgram", "Program", "build", "owned_parameters", "resized"]

# Three sizes: two fix a line, the third proves that it is one. Two at least, for BatchNorm on 1x1 maps.
_BATCH_SIZES = (2, 3, 5)


@dataclass(frozen=True)
class PartProgram:
    """What one local module computes: nodes that read `needs` and leave `gives`."""

    nodes: tuple[Node, ...]
    needs: tuple[int, ...]
    gives: tuple[int, ...]  # all that later parts read
    parameter_views: tuple[int, ...]  # those of `gives` that share a parameter's memory
    boundary: int | None  # the tensor that the local objective reads; None for the last part
    boundary_shape: tuple[int, ...]  # without the batch dimension

    @property
    def blocks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(n.target for n in self.nodes if n.kind == "module"))


@dataclass(frozen=True)
class Program:
    """All parts of a network for one kind of input."""

    parts: tuple[PartProgram, ...]
    inputs: tuple[int, ...]
    output: Any  # a tree of values: the network's own result
    constants: int
    draws_outside_torch: bool


def resized(inputs: tuple[Any, ...], batch_size: int) -> tuple[Any, ...]:
    """The same inputs at another batch size, by repeating or dropping samples of dimension 0."""
    size = next(x.shape[0] for x in tree_leaves(inputs) if isinstance(x, Tensor) and x.dim() > 0)
    rows = torch.arange(batch_size) % size

    def one(x: Any) -> Any:
        follows = isinstance(x, Tensor) and x.dim() > 0 and x.shape[0] == size
        return x.detach()[rows.to(x.device)] if follows else x

    return tree_map(one, inputs)  # type: ignore[no-any-return]


def build(model: nn.Module, inputs: tuple[Any, ...], *, cuts: Sequence[str]) -> Program:
    """Record the network at three batch sizes and cut the recording behind each of `cuts`.

    Raises:
        BadSplit: a cut that forward never calls, calls twice, or that is out of order.
        NotSplittable: the recording depends on the batch in a way that cannot be replayed.
    """
    opened = ancestors(cuts)
    recordings = [record(model, resized(inputs, size), opened=opened) for size in _BATCH_SIZES]
    merged = merge(recordings, _BATCH_SIZES)
    ends = _cut_positions(merged, cuts)
    program = Program(
        parts=_parts(merged, cuts, ends),
        inputs=tuple(merged.inputs),
        output=merged.output,
        constants=merged.constants,
        draws_outside_torch=any(r.draws_outside_torch for r in recordings),
    )
    _check_batch_first(recordings, cuts, program)
    return program


def _check_batch_first(recordings: Sequence[Recording], cuts: Sequence[str], program: Program) -> None:
    for cut, part in zip(cuts, program.parts, strict=False):
        assert part.boundary is not None
        sizes = tuple(recording.shapes[part.boundary][0] for recording in recordings)
        if sizes != _BATCH_SIZES:
            raise BadSplit(
                f"the first dimension of what {cut!r} returns is not the batch",
                got=f"{list(sizes)} at batch sizes {list(_BATCH_SIZES)}",
                remedy="cut behind another block, or use a batch-first network",
            )


def _cut_positions(recording: Recording, cuts: Sequence[str]) -> list[int]:
    """For each cut, the number of nodes before it."""
    positions, problems = [], []
    for cut in cuts:
        found = [i for i, n in enumerate(recording.nodes) if n.kind in ("module", "end") and n.target == cut]
        if len(found) != 1:
            problems.append(f"{cut!r} is called {len(found)} times in forward, a cut needs exactly one call")
        positions.append(found[-1] + 1 if found else -1)
    if not problems and positions != sorted(set(positions)):
        by_position = [cut for _, cut in sorted(zip(positions, cuts, strict=True))]
        problems.append(f"cuts are out of order or fall together; in order of execution: {by_position}")
    if positions and not problems and not any(n.kind == "module" for n in recording.nodes[positions[-1] :]):
        problems.append(f"no block follows the last cut {cuts[-1]!r}: the final module would be empty")
    if problems:
        raise BadSplit(
            "; ".join(problems), got=list(cuts), remedy="infopro.split.blocks(model, x) lists the blocks"
        )
    return positions


def _parts(recording: Recording, cuts: Sequence[str], ends: Sequence[int]) -> tuple[PartProgram, ...]:
    live = value_numbers(recording.output)
    boundaries = [
        _boundary(recording, recording.nodes[end - 1], cut) for cut, end in zip(cuts, ends, strict=True)
    ]
    spans = list(zip([0, *ends], [*ends, len(recording.nodes)], [*boundaries, None], strict=True))
    parts: list[PartProgram] = []
    for start, stop, boundary in reversed(spans):
        nodes = tuple(n for n in recording.nodes[start:stop] if n.kind != "end")
        made = {number for n in nodes if n.kind != "guard" for number in n.outputs if number}
        gives = live | ({boundary} if boundary else set())
        reads = value_numbers([(n.args, n.kwargs) for n in nodes])
        needs = (gives | reads) - made
        program = PartProgram(
            nodes=nodes,
            needs=tuple(sorted(needs)),
            gives=tuple(sorted(gives)),
            parameter_views=tuple(sorted(gives & made & recording.parameter_views)),
            boundary=boundary,
            boundary_shape=recording.shapes[boundary][1:] if boundary else (),
        )
        parts.insert(0, program)
        live = needs
    return tuple(parts)


def _boundary(recording: Recording, node: Node, cut: str) -> int:
    """The largest differentiable tensor among a cut's outputs: what the local objective is computed from."""
    candidates = [number for number in node.outputs if number in recording.differentiable]
    if not candidates:
        raise BadSplit(
            f"cut {cut!r} returns no tensor that can be differentiated",
            remedy="cut behind a block that has trainable parameters",
        )
    largest: int = max(candidates, key=lambda number: (math.prod(recording.shapes[number]), -number))
    return largest


def owned_parameters(part: PartProgram) -> set[str]:
    """Parameters that the glue of a part reads directly, by qualified name."""
    leaves = tree_leaves([(n.args, n.kwargs) for n in part.nodes])
    return {leaf.name for leaf in leaves if isinstance(leaf, Owned)}
