"""Follows every tensor of a step from its making to its freeing: what is alive, its kind, the peak."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any, Literal

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

__all__ = ["KINDS", "Kind", "MemoryTracker", "storage_key"]

Kind = Literal[
    "parameters", "gradients", "optimizer", "activations", "heads", "boundary", "batch", "temporary"
]
KINDS: tuple[Kind, ...] = (
    *("parameters", "gradients", "optimizer", "activations", "heads", "boundary", "batch", "temporary"),
)
_BLOCK = 512  # bytes: what CUDA's caching allocator rounds each request up to


def storage_key(tensor: Tensor) -> int:
    """Identifies the memory behind a tensor while it is alive; fake tensors have no address."""
    return int(tensor.untyped_storage()._cdata)


class MemoryTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While open, counts the bytes of every storage that an operation makes, real or fake.

    A storage is `temporary` until it is labelled. What an operation allocates and frees inside itself, such
    as a convolution's workspace, is not seen.

    Args:
        rounded: count each storage in blocks of 512 bytes, as CUDA's caching allocator hands them out.
    """

    def __init__(self, *, rounded: bool = False):
        super().__init__()  # type: ignore[no-untyped-call]
        self.rounded = rounded
        self.totals: Counter[str] = Counter()
        self.peak = 0
        self.at_peak: dict[str, int] = {}
        self.flops = 0
        self._kinds: dict[int, Kind] = {}
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        return result

    def label(self, tensor: Tensor, kind: Kind, *, only: Kind | None = None) -> None:
        """Say what a tensor's memory is for; with `only`, change it only if it was that before."""
        self._see(tensor)
        key = storage_key(tensor)
        before = self._kinds.get(key)
        if before is None or (only is not None and before != only):
            return
        self._kinds[key] = kind
        self.totals[before] -= self._sizes[key]
        self.totals[kind] += self._sizes[key]

    def reset_peak(self) -> None:
        """Forget the peak so far: it begins with what is alive now."""
        self.peak, self.flops = 0, 0
        self._note_peak()

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._sizes or size == 0:
            return
        size = -(-size // _BLOCK) * _BLOCK if self.rounded else size
        self._sizes[key], self._kinds[key] = size, "temporary"
        self.totals["temporary"] += size
        weakref.finalize(storage, self._forget, key)
        self._note_peak()

    def _forget(self, key: int) -> None:
        self.totals[self._kinds.pop(key)] -= self._sizes.pop(key)

    def _note_peak(self) -> None:
        total = self.totals.total()
        if total > self.peak:
            self.peak, self.at_peak = total, dict(self.totals)
