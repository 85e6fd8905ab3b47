"""Backward slices of a recording: what a value depends on, and whether computing it again gives it again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch.utils._pytree import tree_leaves

from infopro.splitting._values import Owned, Value, value_numbers
from infopro.splitting.record import Node, Recording, writes

__all__ = ["Repeatable", "parameter_glue"]


class Repeatable:
    """Values that may be computed anywhere, any number of times: pure functions of some sources.

    Args:
        nodes: in order of execution.
        sources: values that are given, such as the network's inputs.
    """

    def __init__(self, nodes: Sequence[Node], sources: Iterable[int] = ()):
        overwritten = _overwritten(nodes)
        self.sources = set(sources) - overwritten
        self.makers: dict[int, int] = {}  # value -> index of the node that makes it
        self._nodes = nodes
        for index, node in enumerate(nodes):
            if _pure(node) and self.covers(node) and not overwritten & {*node.outputs}:
                self.makers |= {number: index for number in node.outputs if number}

    def covers(self, node: Node) -> bool:
        """Whether all that a node reads is repeatable."""
        return value_numbers((node.args, node.kwargs)) <= self.makers.keys() | self.sources

    def slice(self, wanted: Iterable[int]) -> tuple[Node, ...]:
        """The nodes that compute `wanted`, in order."""
        found: set[int] = set()
        open_values = set(wanted)
        while open_values:
            value = open_values.pop()
            if value in self.makers and self.makers[value] not in found:
                found.add(self.makers[value])
                node = self._nodes[self.makers[value]]
                open_values |= value_numbers((node.args, node.kwargs))
        return tuple(self._nodes[index] for index in sorted(found))


def parameter_glue(recording: Recording) -> tuple[Repeatable, frozenset[int]]:
    """What glue computes from parameters alone, and which of these values are trained: position tables,
    biases.

    Computed once, such a value would reach later modules detached, and its parameters would learn from the
    first one only. Computed again by every module that reads it, they learn from each.
    """
    pure = Repeatable(recording.nodes)
    trained = {value for value in pure.makers if _reads_parameter(pure.slice([value]))}
    return pure, frozenset(trained & recording.differentiable)


def _reads_parameter(nodes: Iterable[Node]) -> bool:
    return any(isinstance(leaf, Owned) for node in nodes for leaf in tree_leaves((node.args, node.kwargs)))


def _pure(node: Node) -> bool:
    return node.kind == "function" and not node.draws and not writes(node.target)


def _overwritten(nodes: Iterable[Node]) -> set[int | None]:
    """Values that some function writes into after they were made."""
    written = [node for node in nodes if node.kind == "function" and writes(node.target)]
    return {leaf.number for node in written for leaf in tree_leaves(node.args[:1]) if isinstance(leaf, Value)}
