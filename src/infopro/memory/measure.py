"""Counts the bytes that autograd really keeps for the backward pass of a step, module by module."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from infopro.check import unchanged
from infopro.local import LocalModel
from infopro.memory.step import cut_off, track_step
from infopro.memory.tracker import Kind, storage_key

__all__ = ["Measurement", "SavedBytes", "measure", "measure_saved_bytes", "saved_storages"]


@dataclass(frozen=True)
class SavedBytes:
    """Bytes saved for the backward pass, heads and losses included, parameters and buffers not."""

    per_module: tuple[int, ...]

    @property
    def largest(self) -> int:
        """What is alive at once: one module is differentiated before the next one runs."""
        return max(self.per_module)


@dataclass(frozen=True)
class Measurement:
    """The bytes of one real step's forward and backward pass."""

    saved: SavedBytes
    peak: int  # CUDA: what its allocator handed out at most; else: what tensors held at most
    at_peak: Mapping[Kind, int]  # what the peak consists of; empty on CUDA, whose allocator does not know


@contextmanager
def saved_storages(model: nn.Module) -> Iterator[dict[int, int]]:
    """While open, collect {storage: bytes} of what autograd saves; each storage counts once."""
    owned = {storage_key(t) for t in itertools.chain(model.parameters(), model.buffers())}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if storage_key(tensor) not in owned:
            sizes[storage_key(tensor)] = tensor.untyped_storage().nbytes()
        return cut_off(tensor)

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


def measure(local: LocalModel, images: Any, targets: Tensor) -> Measurement:
    """Run one real step and measure it: bytes saved per module, and the peak.

    Saved bytes are exact on every device. The peak is without an optimizer's step. On CUDA it is
    `torch.cuda.max_memory_allocated`, convolutions' workspaces included; elsewhere the tensors of the
    step are
    followed one by one. `local` is left as it was.

    Example:
        >>> import torch, infopro
        >>> local = infopro.localize(
        ...     infopro.models.cifar_resnet(20, 10), torch.rand(2, 3, 32, 32), num_modules=2,
        ...     objective=infopro.objectives.Greedy(), task=infopro.tasks.Classification(num_classes=10))
        >>> found = infopro.memory.measure(local, torch.rand(8, 3, 32, 32), torch.arange(8))
        >>> found.saved.largest < found.peak == sum(found.at_peak.values())
        True
    """
    local.check(images, targets)  # once, apart from what is measured
    if targets.device.type == "cuda":
        saved = measure_saved_bytes(local, images, targets)
        return Measurement(saved, _allocator_peak(local, images, targets), {})
    with unchanged(local), torch.enable_grad():
        step = track_step(local, images, targets)
    return Measurement(SavedBytes(step.saved), step.peak, step.at_peak)


def _allocator_peak(local: LocalModel, images: Any, targets: Tensor) -> int:
    with unchanged(local), torch.enable_grad():
        torch.cuda.synchronize(targets.device)
        torch.cuda.reset_peak_memory_stats(targets.device)
        local.backward(images, targets)
        torch.cuda.synchronize(targets.device)
        return torch.cuda.max_memory_allocated(targets.device)
