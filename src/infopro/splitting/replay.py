"""Runs recorded calls again, on the tensors of another batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from infopro.splitting._values import Owned, decode
from infopro.splitting.program import Guard
from infopro.splitting.recompute import run_again_later
from infopro.splitting.record import Node
from infopro.splitting.spans import Span

__all__ = ["holds", "run_span"]


def run_span(
    span: Span, values: dict[int, Tensor], root: nn.Module, batch_size: int, device: torch.device
) -> None:
    """Run consecutive nodes; `values` loses what nothing reads any more, and gains what they leave."""
    if not span.recomputed:
        _run_nodes(span, values, root, batch_size, device)
        return

    def run(*taken: Tensor) -> tuple[Tensor, ...]:
        own = dict(zip(span.takes, taken, strict=True))
        _run_nodes(span, own, root, batch_size, device)
        return tuple(own[number] for number in span.leaves)

    left = run_again_later(run, _modules(span, root), *(values[number] for number in span.takes))
    for frees in span.frees:
        for number in frees:
            values.pop(number, None)
    values |= zip(span.leaves, left, strict=True)


def _run_nodes(
    span: Span, values: dict[int, Tensor], root: nn.Module, batch_size: int, device: torch.device
) -> None:
    for node, frees in zip(span.nodes, span.frees, strict=True):
        run_node(node, values, root, batch_size, device)
        for number in frees:
            values.pop(number, None)


def _modules(span: Span, root: nn.Module) -> Iterator[nn.Module]:
    """The modules whose buffers a span may touch: its blocks, and the owners of what is read between."""
    for node in span.nodes:
        if node.kind == "module":
            yield from root.get_submodule(node.target).modules()
        for leaf in tree_leaves((node.args, node.kwargs)):
            if isinstance(leaf, Owned):
                yield root.get_submodule(leaf.name.rpartition(".")[0])


def run_node(
    node: Node, values: dict[int, Tensor], root: nn.Module, batch_size: int, device: torch.device
) -> Any:
    """Call what was called, with the network's own modules and parameters; `values` gains what it makes."""
    args, kwargs = decode((node.args, node.kwargs), values, root, batch_size, device)
    call = root.get_submodule(node.target) if node.kind == "module" else node.target
    with torch.set_grad_enabled(torch.is_grad_enabled() and node.grad), _autocast(node, device):
        result = _again_later(call, args, kwargs) if node.checkpointed else call(*args, **kwargs)
    if node.kind != "guard":
        for number, leaf in zip(node.outputs, tree_leaves(result), strict=True):
            if number is not None:
                values[number] = leaf
    return result


def _again_later(block: nn.Module, args: Any, kwargs: Any) -> Any:
    """Call a block as the network's forward did, inside a checkpoint, unless it checkpoints itself."""
    classes = [c for c in type(block).__mro__ if issubclass(c, nn.Module) and c is not nn.Module]
    if any("__call__" in vars(c) for c in classes):
        return block(*args, **kwargs)
    return checkpoint(block, *args, use_reentrant=False, **kwargs)


def holds(
    guard: Guard, values: dict[int, Tensor], root: nn.Module, batch_size: int, device: torch.device
) -> bool:
    """Whether forward would take the recorded branch for this batch; waits for the device."""
    values = dict(values)
    with torch.no_grad():
        for node in guard.slice:
            run_node(node, values, root, batch_size, device)
        return bool(run_node(guard.read, values, root, batch_size, device) == guard.read.outputs)


def _autocast(node: Node, device: torch.device) -> AbstractContextManager[Any]:
    if node.autocast is None:
        return nullcontext()
    enabled, dtype = node.autocast
    return torch.autocast(device.type, dtype=dtype, enabled=enabled)
