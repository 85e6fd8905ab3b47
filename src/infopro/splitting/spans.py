"""Divides the nodes of one module into spans that are kept, or run again, together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from infopro.errors import BadConfiguration
from infopro.splitting._values import value_numbers
from infopro.splitting.record import Node, Recording

__all__ = ["Checkpoint", "Recompute", "Span", "divide", "made", "one_by_one", "stretches", "together"]

# each run from behind one block up to the end of another, "" being the start of the network
Recompute = tuple[tuple[str, str], ...]
# what a user says: blocks alone, heads and losses as well, or the names of some blocks
Checkpoint = Literal["none", "blocks", "everything"] | Sequence[str]


@dataclass(frozen=True)
class Span:
    """Consecutive nodes of one module."""

    nodes: tuple[Node, ...]
    frees: tuple[tuple[int, ...], ...]  # per node, the values that nothing reads after it
    takes: tuple[int, ...]  # what it reads of those before it
    leaves: tuple[int, ...]  # what those behind it read
    until: str  # the block whose end was asked for, "" where none was
    recomputed: bool  # nothing made inside is kept: it runs again in the backward pass


def one_by_one(units: Sequence[str], checkpoint: Checkpoint) -> Recompute:
    """Each of the chosen blocks for itself; `units` are all blocks, in order of execution.

    Raises:
        BadConfiguration: a name that is no block.
    """
    if checkpoint == "none":
        return ()
    names = units if checkpoint in ("blocks", "everything") else checkpoint
    unknown = [names] if isinstance(names, str) else [name for name in names if name not in units]
    if unknown:
        raise BadConfiguration(
            "checkpoint names what is no block",
            got=", ".join(map(repr, unknown)),
            allowed="none, blocks, everything, or some of " + ", ".join(units),
        )
    return tuple((behind, until) for behind, until in together(units) if until in names)


def together(ends: Sequence[str]) -> Recompute:
    """All blocks up to each of `ends`, from the end before it."""
    return tuple(zip(["", *ends], ends, strict=False))


def stretches(recording: Recording, recompute: Recompute) -> dict[int, str]:
    """For each node that is to run again, by position, the block up to which it does so with others."""
    calls: dict[str, list[int]] = {"": [0]}
    for position, node in enumerate(recording.nodes):
        if node.kind in ("module", "end"):
            calls.setdefault(node.target, []).append(position + 1)
    found: dict[int, str] = {}
    for behind, until in recompute:
        starts, stops = calls.get(behind, []), calls.get(until, [])
        if len(starts) == len(stops) == 1:  # a block that is called twice has no one end
            found |= {position: until for position in range(starts[0], stops[0])}
    return found


def divide(nodes: Sequence[tuple[Node, str]], *, kept: set[int], overwritten: set[int]) -> tuple[Span, ...]:
    """The spans of one module.

    Args:
        nodes: in order of execution, each with the block up to which it runs again, or "".
        kept: the values that are read when the module is done.
        overwritten: the values that something writes into, of which a second run would see the wrong ones.
    """
    frees = iter(_last_reads([node for node, _ in nodes], kept))
    return tuple(_spans(nodes, frees, overwritten))


def _spans(
    nodes: Sequence[tuple[Node, str]], frees: Iterator[tuple[int, ...]], overwritten: set[int]
) -> Iterator[Span]:
    for until, group in itertools.groupby(nodes, key=lambda pair: pair[1]):
        members = tuple(node for node, _ in group)
        freed = tuple(itertools.islice(frees, len(members)))
        own = made(members)
        takes = value_numbers([(n.args, n.kwargs) for n in members]) - own
        checkpoints_itself = any(node.checkpointed for node in members)
        yield Span(
            nodes=members,
            frees=freed,
            takes=tuple(sorted(takes)),
            leaves=tuple(sorted(own - set(itertools.chain(*freed)))),
            until=until,
            recomputed=bool(until) and not checkpoints_itself and not takes & overwritten,
        )


def made(nodes: Sequence[Node]) -> set[int]:
    """The values that nodes make."""
    return {number for node in nodes for number in node.outputs if number}


def _last_reads(nodes: Sequence[Node], kept: set[int]) -> tuple[tuple[int, ...], ...]:
    """For each node the values to drop behind it, as Python drops what a forward no longer names."""
    seen, frees = set(kept), []
    for node in reversed(nodes):
        touched = value_numbers((node.args, node.kwargs)) | {number for number in node.outputs if number}
        frees.append(tuple(sorted(touched - seen)))
        seen |= touched
    return tuple(reversed(frees))
