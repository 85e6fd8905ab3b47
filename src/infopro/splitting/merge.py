"""Makes one recording out of several at different batch sizes: what changes must follow the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from infopro.errors import NotReplayable
from infopro.splitting._values import Affine
from infopro.splitting.record import Node, Recording

__all__ = ["merge"]


def merge(recordings: Sequence[Recording], batch_sizes: Sequence[int]) -> Recording:
    """The common recording, in which every size that changed is `slope * batch + offset`.

    Raises:
        NotReplayable: the calls themselves, or a size in another way than linearly, depend on the batch size.
    """
    first = recordings[0]
    if len({len(r.nodes) for r in recordings}) != 1:
        raise NotReplayable(
            "the operations of forward depend on the batch size",
            got=f"{[len(r.nodes) for r in recordings]} operations at batch sizes {list(batch_sizes)}",
            remedy="move the batch-dependent code into a block, or train end to end",
        )
    nodes = [_merge_nodes(nodes, batch_sizes) for nodes in zip(*(r.nodes for r in recordings), strict=True)]
    output = _merge_trees([r.output for r in recordings], batch_sizes, "the network's result")
    return replace(first, nodes=nodes, output=output)


def _merge_nodes(nodes: Sequence[Node], batch_sizes: Sequence[int]) -> Node:
    what = f"the call of {getattr(nodes[0].target, '__name__', nodes[0].target)}"
    if any(n.kind != nodes[0].kind or n.target != nodes[0].target for n in nodes):
        raise NotReplayable("the operations of forward depend on the batch size", got=what)
    parts = {
        name: _merge_trees([getattr(n, name) for n in nodes], batch_sizes, what)
        for name in ("args", "kwargs", "outputs")
    }
    return replace(nodes[0], **parts)


def _merge_trees(trees: Sequence[Any], batch_sizes: Sequence[int], what: str) -> Any:
    leaves, specs = zip(*(tree_flatten(tree) for tree in trees), strict=True)
    if any(spec != specs[0] for spec in specs):
        raise NotReplayable("the structure of an argument depends on the batch size", got=what)
    merged = [_merge_leaf(values, batch_sizes, what) for values in zip(*leaves, strict=True)]
    return tree_unflatten(merged, specs[0])


def _merge_leaf(values: Sequence[Any], batch_sizes: Sequence[int], what: str) -> Any:
    first = values[0]
    if isinstance(first, torch.Tensor) or all(value is first for value in values):
        return first
    if type(first) is int and any(value != first for value in values):
        slope = (values[1] - first) // (batch_sizes[1] - batch_sizes[0])
        offset = first - slope * batch_sizes[0]
        if all(slope * b + offset == v for b, v in zip(batch_sizes, values, strict=True)):
            return Affine(slope, offset)
    if any(value != first for value in values):
        seen = f"{what} with {list(values)} at batch sizes {list(batch_sizes)}"
        raise NotReplayable("forward computes with a number that does not follow the batch size", got=seen)
    return first
