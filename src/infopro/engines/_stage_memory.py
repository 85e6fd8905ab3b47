"""Where the tensors of one module lie: at rest in host memory or in a mapped file, or on the device."""

from __future__ import annotations

import itertools
import mmap
import os
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from infopro.errors import BadConfiguration
from infopro.local import LocalStage
from infopro.memory import DoesNotFit, format_bytes

__all__ = ["Layout", "Ledger", "StageMemory", "travelling"]

_ALIGNMENT = 64  # bytes, as torch aligns what it allocates: kernels may look at it
_PIECE = 2**24  # bytes that are copied at a time


@dataclass(frozen=True)
class Layout:
    """How tensors lie behind each other in one stretch of bytes."""

    entries: tuple[tuple[torch.dtype, tuple[int, ...], tuple[int, ...]], ...]  # dtype, shape, strides
    offsets: tuple[int, ...]  # one more than entries: the last is where the stretch ends

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Layout:
        """Strides are kept where a tensor is dense."""
        entries, offsets = [], [0]
        for tensor in tensors:
            dense = torch.empty_like(tensor, device="meta")
            entries.append((dense.dtype, tuple(dense.shape), dense.stride()))
            offsets.append(offsets[-1] + -(-dense.nbytes // _ALIGNMENT) * _ALIGNMENT)
        return cls(tuple(entries), tuple(offsets))

    @property
    def nbytes(self) -> int:
        return self.offsets[-1]

    def views(self, memory: Tensor, count: int) -> Iterator[Tensor]:
        """The first `count` tensors, in a stretch that holds them at least."""
        places = zip(self.entries[:count], self.offsets, self.offsets[1:], strict=False)
        for (dtype, shape, strides), start, end in places:
            yield memory[start:end].view(dtype).as_strided(shape, strides)

    def holds(self, tensors: Sequence[Tensor], memory: Tensor) -> bool:
        """Whether these tensors are the ones that lie there."""
        if [(t.dtype, tuple(t.shape), t.stride()) for t in tensors] != list(self.entries):
            return False
        start = memory.data_ptr()
        places = zip(tensors, self.offsets, strict=False)
        return all(t.data_ptr() == start + offset for t, offset in places if t.numel())


class Ledger:
    """Bytes on the device, now and at most; copies in a thread of their own are counted, too.

    Raises:
        DoesNotFit: from `take`, where the budget would be left.
    """

    def __init__(self, budget: int | None):
        self.budget = budget
        self.now = self.most = 0
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> None:
        with self._lock:
            if self.budget is not None and self.now + nbytes > self.budget:
                raise DoesNotFit(
                    "the modules on the device need more than was planned",
                    got=format_bytes(self.now + nbytes),
                    allowed=format_bytes(self.budget),
                    remedy="raise the budget, or cut the network into more modules",
                )
            self.now += nbytes
            self.most = max(self.most, self.now)

    def give(self, nbytes: int) -> None:
        with self._lock:
            self.now -= nbytes

    @contextmanager
    def holding(self, nbytes: int) -> Iterator[None]:
        """While open, so many bytes more."""
        self.take(nbytes)
        try:
            yield
        finally:
            self.give(nbytes)


class _Shelf:
    """Host memory in which a module rests: pinned, or a file of a folder, mapped."""

    def __init__(self, nbytes: int, directory: Path | None):
        self._mapping = None if directory is None else _map(directory, max(nbytes, 1))
        if self._mapping is None:
            self.memory = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
        else:
            self.memory = torch.frombuffer(self._mapping, dtype=torch.uint8)

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Copy bytes from here or to here, with few of the file's pages in this process at a time."""
        for start in range(0, target.numel(), _PIECE):
            piece = slice(start, start + _PIECE)
            target[piece].copy_(source[piece], non_blocking=True)
            self.leave()

    def leave(self) -> None:
        """Let go of the pages: what was read or written stays in the file, not in this process."""
        if self._mapping is not None:
            self._mapping.madvise(mmap.MADV_DONTNEED)


class StageMemory:
    """One module's parameters, buffers and optimizer state: all at rest, or all in one stretch of the device.

    The tensors stay the same objects: only the memory behind them changes, so that network, heads and
    optimizer are whole at any time. What finds itself elsewhere, as optimizer state that was just made or
    loaded, is put into a new shelf with the next move.

    Args:
        shared: ids of tensors that stay on the device, since several modules read them.
        directory: of the files; None for pinned memory.
    """

    def __init__(
        self,
        stage: LocalStage,
        optimizer: Optimizer,
        shared: Collection[int],
        *,
        device: torch.device,
        directory: Path | None,
        ledger: Ledger,
    ):
        self._stage = stage
        self._optimizer = optimizer
        self._shared = shared
        self._device = device
        self._directory = directory
        self._ledger = ledger
        self._layout = Layout.of(())
        self._shelf: _Shelf | None = None
        self._here: Tensor | None = None  # on the device
        self._extra = 0  # bytes there outside of it: state that the first step makes
        self.bytes_to_device = self.bytes_from_device = 0

    def rest(self) -> None:
        """Put everything into a shelf of its own, from wherever it is."""
        self._shelve([*self._weights(), *self._state()])

    def fetch(self, *, state: bool) -> None:
        """Bring the module to the device; without its optimizer state for a test."""
        weights, moments = self._weights(), self._state()
        everything = [*weights, *moments]
        shelf = self._shelf
        if shelf is None or not self._layout.holds(everything, shelf.memory):
            shelf = self._shelve(everything)
        tensors = everything if state else weights
        end = self._layout.offsets[len(tensors)]
        self._ledger.take(end)
        self._here = torch.empty(end, dtype=torch.uint8, device=self._device)
        shelf.copy(self._here, shelf.memory[:end])
        self._point(tensors, self._here)
        self.bytes_to_device += sum(tensor.nbytes for tensor in tensors)

    def note_new_state(self) -> None:
        """Count the optimizer state that a first step has made beside the stretch."""
        assert self._here is not None
        inside, start = self._here.nbytes, self._here.data_ptr()
        outside = [t for t in self._state() if not start <= t.data_ptr() < start + inside]
        extra = Layout.of(outside).nbytes
        self._ledger.take(extra)
        self._extra = extra

    def put_back(self, *, changed: bool) -> None:
        """Let the module rest again; nothing is copied where nothing has changed."""
        if self._here is None:
            return
        assert self._shelf is not None
        tensors = [*self._weights(), *self._state()] if changed else self._weights()
        if changed and not self._layout.holds(tensors, self._here):
            self._shelve(tensors)
        else:
            if changed:
                self._shelf.copy(self._shelf.memory, self._here)
            self._point(tensors, self._shelf.memory)
        self.bytes_from_device += sum(tensor.nbytes for tensor in tensors) * changed
        freed = self._here.nbytes + self._extra
        self._here, self._extra = None, 0
        self._ledger.give(freed)

    def bring_home(self) -> None:
        """Back into ordinary memory; the shelf is given up."""
        for tensor in [*self._weights(), *self._state()]:
            tensor.data = tensor.detach().clone()
        self._shelf = None

    def planned(self, state: Mapping[nn.Parameter, Sequence[Tensor]]) -> tuple[int, int]:
        """Bytes on the device, the optimizer state to come included, and besides those of its gradients."""
        trained = [p for p in self._stage.parameters() if p.requires_grad and id(p) not in self._shared]
        moments = [tensor for parameter in trained for tensor in state.get(parameter, ())]
        return Layout.of([*self._weights(), *moments]).nbytes, sum(p.nbytes for p in trained)

    def _weights(self) -> list[Tensor]:
        stage = self._stage
        found = itertools.chain(stage.part.tensors(), stage.objective.parameters(), stage.objective.buffers())
        return list({id(tensor): tensor for tensor in found if id(tensor) not in self._shared}.values())

    def _state(self) -> list[Tensor]:
        own = set(self._stage.parameters())
        return [
            value
            for group in self._optimizer.param_groups
            for parameter in group["params"]
            if parameter in own
            for value in travelling(self._optimizer.state.get(parameter, {}), group, self._device)
        ]

    def _shelve(self, tensors: Sequence[Tensor]) -> _Shelf:
        self._layout = Layout.of(tensors)
        shelf = self._shelf = _Shelf(self._layout.nbytes, self._directory)
        for tensor, view in zip(tensors, self._layout.views(shelf.memory, len(tensors)), strict=True):
            view.copy_(tensor.detach())  # waits: the device's memory is given back at once
            tensor.data = view
        shelf.leave()
        return shelf

    def _point(self, tensors: Sequence[Tensor], memory: Tensor) -> None:
        for tensor, view in zip(tensors, self._layout.views(memory, len(tensors)), strict=True):
            tensor.data = view


def travelling(
    state: Mapping[str, object], group: Mapping[str, object], device: torch.device
) -> list[Tensor]:
    """The state that lies where its parameter does: a step counter usually stays on the host."""
    counts_there = device.type == "cpu" or bool(group.get("fused") or group.get("capturable"))
    return [v for name, v in state.items() if isinstance(v, Tensor) and (counts_there or name != "step")]


def _map(directory: Path, nbytes: int) -> mmap.mmap:
    """A mapped file that has no name any more, so that nothing is left of it when the process ends."""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.truncate(nbytes)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, nbytes)  # a full disk is an error here, later a crash
            return mmap.mmap(file.fileno(), nbytes)
    except OSError as error:
        raise BadConfiguration(
            f"{directory} cannot hold the resting modules",
            got=f"{error.strerror}, for {format_bytes(nbytes)}",
            remedy="give a folder that exists, on a disk with more space",
        ) from error
