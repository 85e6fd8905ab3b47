"""A merged recording, cut into parts: pure data, no tensors and no modules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from infopro.errors import BadSplit, NotReplayable
from infopro.splitting._values import Owned, value_numbers
from infopro.splitting.merge import merge
from infopro.splitting.record import Node, Recording, ancestors, record
from infopro.splitting.slices import Repeatable, parameter_glue
from infopro.splitting.spans import Recompute, Span, divide, made, stretches

__all__ = ["Guard", "PartProgram", "Program", "batch_size_of", "build", "owned_tensors", "resized"]

# Three sizes: two fix a line, the third proves that it is one. Two at least, for BatchNorm on 1x1 maps.
_BATCH_SIZES = (2, 3, 5)


@dataclass(frozen=True)
class PartProgram:
    """What one local module computes: spans that read `needs` and leave `gives`."""

    spans: tuple[Span, ...]
    needs: tuple[int, ...]
    gives: tuple[int, ...]  # all that later parts read
    parameter_views: tuple[int, ...]  # those of `gives` that share a parameter's memory
    boundary: int | None  # the tensor that the local objective reads; None for the last part
    boundary_shape: tuple[int, ...]  # without the batch dimension

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(node for span in self.spans for node in span.nodes)

    @property
    def blocks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(n.target for n in self.nodes if n.kind == "module"))


@dataclass(frozen=True)
class Guard:
    """A branch of forward on a value that follows from the inputs alone, such as `mask.all()`."""

    slice: tuple[Node, ...]  # computes what the read looks at
    read: Node  # its `outputs` is the answer that was recorded


@dataclass(frozen=True)
class Program:
    """All parts of a network for one kind of input."""

    parts: tuple[PartProgram, ...]
    inputs: tuple[int, ...]
    output: Any  # a tree of values: the network's own result
    guards: tuple[Guard, ...]  # what a batch must fulfil to be run by this program
    constants: int

    @property
    def recomputed(self) -> tuple[str, ...]:
        """The blocks up to which a stretch of blocks runs again."""
        return tuple(dict.fromkeys(s.until for s in self._spans if s.recomputed))

    @property
    def kept(self) -> tuple[str, ...]:
        """Those that were to run again but are kept, because a second run would not be exact."""
        return tuple(dict.fromkeys(s.until for s in self._spans if s.until and not s.recomputed))

    @property
    def _spans(self) -> list[Span]:
        return [span for part in self.parts for span in part.spans]


def batch_size_of(inputs: Any) -> int:
    """The first dimension of the first input that has one."""
    return next(x.shape[0] for x in tree_leaves(inputs) if isinstance(x, Tensor) and x.dim() > 0)


def resized(inputs: tuple[Any, ...], batch_size: int) -> tuple[Any, ...]:
    """The same inputs at another batch size, by repeating or dropping samples of dimension 0."""
    size = batch_size_of(inputs)
    rows = torch.arange(batch_size) % size

    def one(x: Any) -> Any:
        follows = isinstance(x, Tensor) and x.dim() > 0 and x.shape[0] == size
        return x.detach()[rows.to(x.device)] if follows else x

    return tree_map(one, inputs)  # type: ignore[no-any-return]


def build(
    model: nn.Module, inputs: tuple[Any, ...], *, cuts: Sequence[str], recompute: Recompute = ()
) -> Program:
    """Record the network at three batch sizes and cut the recording behind each of `cuts`.

    Args:
        recompute: what runs again in the backward pass; stretches where that would not be exact are kept.

    Raises:
        BadSplit: a cut that forward never calls, calls twice, or that is out of order.
        NotReplayable: the recording depends on the batch, on activations or on chance in a way that cannot be
            replayed.
    """
    opened = ancestors([*cuts, *(until for _, until in recompute)])
    recordings = [record(model, resized(inputs, size), opened=opened) for size in _BATCH_SIZES]
    if any(recording.draws_outside_torch for recording in recordings):
        raise NotReplayable(
            "forward draws from Python's or NumPy's random numbers between blocks",
            remedy="draw with torch, or inside a block",
        )
    merged = merge(recordings, _BATCH_SIZES)
    merged, guards = _foreseeable(merged)
    ends = cut_positions(merged, cuts)
    batch_first = _batch_first(recordings)
    boundaries = [
        _boundary(merged, start, end, cut, batch_first)
        for cut, start, end in zip(cuts, [0, *ends], ends, strict=False)
    ]
    return Program(
        parts=_parts(merged, boundaries, ends, stretches(merged, recompute)),
        inputs=tuple(merged.inputs),
        output=merged.output,
        guards=guards,
        constants=merged.constants,
    )


def _foreseeable(recording: Recording) -> tuple[Recording, tuple[Guard, ...]]:
    """Take the guards out of a recording: their answers are known before the first block runs."""
    pure = Repeatable(recording.nodes, sources=recording.inputs)
    reads = [node for node in recording.nodes if node.kind == "guard"]
    late = sorted({node.target.__name__ for node in reads if not pure.covers(node)})
    if late:
        raise NotReplayable(
            "forward branches on the value of an activation or of a random number",
            got=", ".join(late),
            remedy="move the branch into a block",
        )
    guards = [Guard(pure.slice(value_numbers((node.args, node.kwargs))), node) for node in reads]
    nodes = [node for node in recording.nodes if node.kind != "guard"]
    return replace(recording, nodes=nodes), tuple(guards)


def cut_positions(recording: Recording, cuts: Sequence[str]) -> list[int]:
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
            "; ".join(problems), got=list(cuts), remedy="infopro.blocks(model, x) lists the blocks"
        )
    return positions


def _batch_first(recordings: Sequence[Recording]) -> set[int]:
    """The values whose first dimension is the batch."""
    shapes = [recording.shapes for recording in recordings]
    return {
        number
        for number in shapes[0]
        if tuple(s[number][0] if s[number] else 0 for s in shapes) == _BATCH_SIZES
    }


def _parts(
    recording: Recording, boundaries: Sequence[int], ends: Sequence[int], again: dict[int, str]
) -> tuple[PartProgram, ...]:
    live = value_numbers(recording.output)
    pure, trained = parameter_glue(recording)
    sides = list(zip([0, *ends], [*ends, len(recording.nodes)], [*boundaries, None], strict=True))
    parts: list[PartProgram] = []
    for start, stop, boundary in reversed(sides):
        marked = [(recording.nodes[i], again.get(i, "")) for i in range(start, stop)]
        marked = [(node, until) for node, until in marked if node.kind != "end"]
        nodes = [node for node, _ in marked]
        gives = live | ({boundary} if boundary else set())
        wanted = gives | value_numbers([(n.args, n.kwargs) for n in nodes])
        repeated = pure.slice((wanted & trained) - made(nodes))
        marked = [*((n, "") for n in repeated if n not in nodes), *marked]
        nodes = [node for node, _ in marked]
        own = made(nodes)
        needs = (gives | value_numbers([(n.args, n.kwargs) for n in nodes])) - own
        program = PartProgram(
            spans=divide(marked, kept=gives, overwritten=recording.overwritten),
            needs=tuple(sorted(needs)),
            gives=tuple(sorted(gives)),
            parameter_views=tuple(sorted(gives & own & recording.parameter_views)),
            boundary=boundary,
            boundary_shape=recording.shapes[boundary][1:] if boundary else (),
        )
        parts.insert(0, program)
        live = needs
    return tuple(parts)


def _boundary(recording: Recording, start: int, end: int, cut: str, batch_first: set[int]) -> int:
    """The largest of a cut's outputs that its part trains: what the local objective is computed from."""
    inside = made(recording.nodes[start:end])
    own = [n for n in recording.nodes[end - 1].outputs if recording.passed_on.get(n, n) in inside]
    trained = [number for number in own if number in recording.differentiable]
    candidates = [number for number in trained if number in batch_first and len(recording.shapes[number]) > 1]
    if not trained:
        raise BadSplit(
            f"cut {cut!r} returns no tensor that can be differentiated",
            remedy="cut behind a block that has trainable parameters",
        )
    if not candidates:
        raise BadSplit(
            f"the first dimension of what {cut!r} returns is not the batch",
            got=str([list(recording.shapes[number]) for number in trained]),
            remedy="cut behind another block, or use a batch-first network",
        )
    largest: int = max(candidates, key=lambda number: (math.prod(recording.shapes[number]), -number))
    return largest


def owned_tensors(part: PartProgram) -> set[str]:
    """Parameters and buffers that the glue of a part reads directly, by qualified name."""
    leaves = tree_leaves([(n.args, n.kwargs) for n in part.nodes])
    return {leaf.name for leaf in leaves if isinstance(leaf, Owned)}
