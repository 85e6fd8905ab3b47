"""Which parameters a loss of some tensors would train."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

__all__ = ["parameters_behind"]


def parameters_behind(tensors: Iterable[Tensor]) -> set[int]:
    """The ids of all parameters that a gradient of these tensors would reach, found without computing it."""
    found: set[int] = set()
    waiting = [t.grad_fn for t in tensors if t.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        variable = getattr(node, "variable", None)  # of the node that adds to a parameter's gradient
        if variable is not None:
            found.add(id(variable))
        following = {behind for behind, _ in node.next_functions if behind is not None} - seen
        seen |= following
        waiting += following
    return found
