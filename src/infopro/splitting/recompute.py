"""Runs a piece of a network, keeps its inputs only, and runs it again, exactly, in the backward pass."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.checkpoint import checkpoint

__all__ = ["run_again_later"]

Result = TypeVar("Result")
_Buffers = dict[str, Tensor | None]


def run_again_later(
    function: Callable[..., Result], modules: Iterable[nn.Module], *args: Any, **kwargs: Any
) -> Result:
    """Call a function now, and once more when its results are differentiated; nothing between is kept.

    The second run sees the buffers and the random streams of the first one, and leaves none of its own traces
    behind: losses, gradients, BatchNorm's statistics and what is drawn later are those of a single run.

    Args:
        function: what runs again.
        modules: those whose buffers it reads or writes.
    """
    if not torch.is_grad_enabled():
        return function(*args, **kwargs)
    leaves, tree = tree_flatten((args, kwargs))

    def call(*leaves: Any) -> Result:
        args, kwargs = tree_unflatten(leaves, tree)
        return function(*args, **kwargs)

    if torch.compiler.is_compiling():  # a compiled graph writes buffers once, whatever it computes twice
        return checkpoint(call, *leaves, use_reentrant=False)
    past = _Past(modules)
    # leaf by leaf: only tensors that are arguments themselves are kept as autograd keeps them
    return checkpoint(call, *leaves, use_reentrant=False, context_fn=lambda: (nullcontext(), past))


class _Past:
    """While open, what a function may read besides its arguments is as it was when this was made.

    Torch's own streams are `checkpoint`'s. Buffers are exchanged, not written: autograd may have saved them.
    """

    def __init__(self, modules: Iterable[nn.Module]):
        owners = {id(module): module._buffers for module in modules}.values()
        self._buffers = _copies((owner, owner) for owner in owners)
        self._streams = random.getstate(), np.random.get_state()

    def __enter__(self) -> None:
        self._present = [(owner, dict(owner)) for owner, _ in self._buffers]
        self._present_streams = random.getstate(), np.random.get_state()
        # copies once more: a graph that is retained may be differentiated again
        _set(_copies(self._buffers), self._streams)

    def __exit__(self, *error: object) -> None:
        _set(self._present, self._present_streams)
        del self._present, self._present_streams


def _copies(states: Iterable[tuple[_Buffers, _Buffers]]) -> list[tuple[_Buffers, _Buffers]]:
    """The same states with copies of their buffers; one that has several names is copied once."""
    states = list(states)
    buffers = {id(b): b for _, values in states for b in values.values() if b is not None}
    copies = {key: buffer.detach().clone() for key, buffer in buffers.items()}
    return [(owner, {name: copies.get(id(b)) for name, b in values.items()}) for owner, values in states]


def _set(buffers: Iterable[tuple[_Buffers, _Buffers]], streams: tuple[Any, Any]) -> None:
    for owner, values in buffers:
        owner.clear()
        owner.update(values)
    random.setstate(streams[0])
    np.random.set_state(streams[1])
