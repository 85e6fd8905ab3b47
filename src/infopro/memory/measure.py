"""Counts the bytes that autograd really keeps for the backward pass of a step, module by module."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from infopro.check import unchanged
from infopro.local import LocalModel

__all__ = ["SavedBytes", "measure_saved_bytes", "saved_storages"]


@dataclass(frozen=True)
class SavedBytes:
    """Bytes saved for the backward pass, heads and losses included, parameters and buffers not."""

    per_module: tuple[int, ...]

    @property
    def largest(self) -> int:
        """What is alive at once: one module is differentiated before the next one runs."""
        return max(self.per_module)


@contextmanager
def saved_storages(model: nn.Module) -> Iterator[dict[int, int]]:
    """While open, collect {storage address: bytes} of what autograd saves; each storage counts once."""
    owned = {t.untyped_storage().data_ptr() for t in itertools.chain(model.parameters(), model.buffers())}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


def measure_saved_bytes(local: LocalModel, images: Any, targets: Tensor) -> SavedBytes:
    """Run one step and count, for each module, the storages saved when its backward pass begins.

    Exact on every device: a fact about the graph, not about an allocator. `local` is left as it was.
    """
    found: list[int] = []
    with unchanged(local), torch.enable_grad(), saved_storages(local) as sizes:

        def note(_: int) -> None:
            found.append(sum(sizes.values()))
            sizes.clear()

        local.backward(images, targets, on_stage_done=note)
    return SavedBytes(tuple(found))
