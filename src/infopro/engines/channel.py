"""From one module to the next: messages that are sent while their sender computes on, in one direction.

Torch's point-to-point calls, nothing else: a header that says which batch this is, then the buffers of its
tensors. How the tensors lie in the buffers travels once per size of batch. A sender waits for its receiver
only where `depth` messages are under way; a receiver has as many posted ahead.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from infopro.engines.packing import Layout, fitted, pack, storages_of, unpack
from infopro.engines.processes import CLOSED
from infopro.errors import AlreadyTold, InfoProError, StageLost

__all__ = ["Header", "Receiver", "Sender", "Watcher"]

_HEADER, _BUFFER, _VALUE = 0, 1, 2  # tags: what was posted for one is never filled by another


class Watcher(Protocol):
    """Who is told how time is spent, and can say who is missing."""

    def span(self, kind: Any, step: int | None = None) -> AbstractContextManager[object]: ...

    def explain(self, waited_for: int) -> str: ...

    def explain_gone(self, peer: int) -> str | None: ...


@dataclass(frozen=True)
class Header:
    """Which batch a message belongs to; both sides know beforehand what comes, and compare."""

    training: bool
    epoch: int
    step: int
    size: int  # images
    stop: bool = False  # no more batches: the run is being stopped

    @property
    def kind(self) -> tuple[bool, int]:
        """Messages of one kind have one layout."""
        return self.training, self.size

    def encoded(self) -> Tensor:
        return torch.tensor([self.training, self.epoch, self.step, self.size, self.stop], dtype=torch.int64)

    @staticmethod
    def decoded(numbers: Tensor) -> Header:
        training, epoch, step, size, stop = numbers.tolist()
        return Header(bool(training), epoch, step, size, bool(stop))


class Sender:
    """The near end of the connection to the next module.

    Args:
        peer: rank of the process that receives.
        depth: messages that may be under way before the sender waits.
    """

    def __init__(self, group: dist.ProcessGroup, peer: int, *, depth: int, watcher: Watcher):
        self._group, self._peer, self._depth, self._watcher = group, peer, depth, watcher
        self._under_way: deque[list[tuple[dist.Work, Tensor]]] = deque()
        self._layouts: dict[tuple[bool, int], Layout] = {}
        self.bytes_sent = 0

    def send(self, header: Header, tensors: Sequence[Tensor], *, overwritten: Collection[int] = ()) -> None:
        """Start to send; the tensors may be read on, not written, until the receiver has them.

        Args:
            overwritten: addresses of storages that will be written soon: these are copied.
        """
        with self._watcher.span("back-pressure", header.step):
            self._wait(leave=self._depth - 1)
        with self._watcher.span("send", header.step):
            layout, buffers = pack(tensors, copied=overwritten)
            known = self._layouts.setdefault(header.kind, layout)
            if layout != known:
                buffers = fitted(known, tensors)
            work = [self._isend(header.encoded(), _HEADER)]
            if known is layout:
                work += [self._isend(t, _VALUE) for t in _encoded(layout)]
            work += [self._isend(buffer, _BUFFER) for buffer in buffers if len(buffer)]
            self._under_way.append(work)

    def stop(self, header: Header) -> None:
        """Say that no further batch comes."""
        self._under_way.append([self._isend(replace(header, stop=True).encoded(), _HEADER)])

    def send_value(self, value: Any) -> None:
        """Send a plain value: numbers for the log, a part of a checkpoint's record."""
        self._under_way.append([self._isend(t, _VALUE) for t in _encoded(value)])

    def drain(self) -> None:
        """Return when everything has been received."""
        with self._watcher.span("back-pressure"):
            self._wait(leave=0)

    def _isend(self, tensor: Tensor, tag: int) -> tuple[dist.Work, Tensor]:
        self.bytes_sent += tensor.nbytes
        try:
            work = dist.isend(tensor, self._peer, group=self._group, tag=tag)
        except RuntimeError as error:
            raise _lost(self._watcher, self._peer, error) from error
        assert work is not None
        return work, tensor  # which must live until it is sent

    def _wait(self, *, leave: int) -> None:
        while len(self._under_way) > leave:
            for work, _ in self._under_way.popleft():
                _finish(work, self._watcher, self._peer)


@dataclass(frozen=True)
class _Posted:
    """A message that is expected; without buffers where its layout is not known yet."""

    expected: Header
    header: Tensor
    announced: dist.Work
    buffers: list[Tensor]
    works: list[dist.Work]


class Receiver:
    """The far end: posts receives ahead, into buffers that are used again."""

    def __init__(
        self, group: dist.ProcessGroup, peer: int, *, depth: int, watcher: Watcher, device: torch.device
    ):
        self._group, self._peer, self._depth, self._watcher = group, peer, depth, watcher
        self._device = device
        self._layouts: dict[tuple[bool, int], Layout] = {}
        self._free: dict[tuple[bool, int], list[list[Tensor]]] = {}
        self.memory: set[int] = set()  # addresses of the buffers that messages come in

    def stream(self, headers: Iterable[Header]) -> Iterator[tuple[Header, list[Tensor]]]:
        """The messages of these headers, in order; a message's tensors live until the next one is asked for.

        Ends early, with a header whose `stop` is set, where the sender stops.
        """
        posted: deque[_Posted] = deque()
        coming = deque(headers)
        while coming or posted:
            while coming and len(posted) < self._depth and self._may_post(coming[0], posted):
                posted.append(self._post(coming.popleft()))
            message = posted.popleft()
            with self._watcher.span("receive", message.expected.step):
                header, buffers = self._complete(message)
            if header.stop:
                yield header, []
                return
            yield header, unpack(self._layouts[header.kind], buffers)
            self._free.setdefault(header.kind, []).append(buffers)

    def unforeseen(self) -> Iterator[tuple[Header, Layout, list[Tensor]]]:
        """Messages as they come, each in memory of its own, until the sender stops."""
        while True:
            numbers = torch.empty_like(Header(True, 0, 0, 0).encoded())
            _finish(self._irecv(numbers, _HEADER), self._watcher, self._peer)
            header = Header.decoded(numbers)
            if header.stop:
                return
            if header.kind not in self._layouts:
                self._layouts[header.kind] = self._value()
            layout = self._layouts[header.kind]
            buffers = [torch.empty(n, dtype=torch.uint8, device=self._device) for n in layout.num_bytes]
            for buffer in buffers:
                if len(buffer):
                    _finish(self._irecv(buffer, _BUFFER), self._watcher, self._peer)
            yield header, layout, buffers

    def receive_value(self) -> Any:
        """What `send_value` sent."""
        with self._watcher.span("receive"):
            return self._value()

    def _may_post(self, coming: Header, posted: Sequence[_Posted]) -> bool:
        """Where one of two layouts is not known yet, the later message would get the earlier's buffers."""
        return not posted or {coming.kind, posted[-1].expected.kind} <= self._layouts.keys()

    def _post(self, expected: Header) -> _Posted:
        header = torch.empty_like(expected.encoded())
        announced = self._irecv(header, _HEADER)
        layout = self._layouts.get(expected.kind)
        buffers = [] if layout is None else self._buffers(expected.kind, layout)
        works = [self._irecv(buffer, _BUFFER) for buffer in buffers if len(buffer)]
        return _Posted(expected, header, announced, buffers, works)

    def _complete(self, message: _Posted) -> tuple[Header, list[Tensor]]:
        _finish(message.announced, self._watcher, self._peer)
        header = Header.decoded(message.header)
        if header.stop:
            return header, []
        if header != message.expected:
            raise StageLost(
                "two modules are at different batches", got=f"{header}", allowed=f"{message.expected}"
            )
        buffers, works = message.buffers, message.works
        if header.kind not in self._layouts:
            self._layouts[header.kind] = layout = self._value()
            buffers = self._buffers(header.kind, layout)
            works = [self._irecv(buffer, _BUFFER) for buffer in buffers if len(buffer)]
        for work in works:
            _finish(work, self._watcher, self._peer)
        return header, buffers

    def _buffers(self, kind: tuple[bool, int], layout: Layout) -> list[Tensor]:
        free = self._free.get(kind)
        if free:
            return free.pop()
        made = [torch.empty(n, dtype=torch.uint8, device=self._device) for n in layout.num_bytes]
        self.memory |= storages_of(made)
        return made

    def _irecv(self, tensor: Tensor, tag: int) -> dist.Work:
        try:
            work = dist.irecv(tensor, self._peer, group=self._group, tag=tag)
        except RuntimeError as error:
            raise _lost(self._watcher, self._peer, error) from error
        assert work is not None
        return work

    def _value(self) -> Any:
        length = torch.empty(1, dtype=torch.int64)
        _finish(self._irecv(length, _VALUE), self._watcher, self._peer)
        content = torch.empty(int(length), dtype=torch.uint8)
        _finish(self._irecv(content, _VALUE), self._watcher, self._peer)
        return pickle.loads(content.numpy().tobytes())


def _encoded(value: Any) -> tuple[Tensor, Tensor]:
    """The length, and the bytes; pickle is no door here: both ends are the same program."""
    content = torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
    return torch.tensor([len(content)]), content


def _finish(work: dist.Work, watcher: Watcher, peer: int) -> None:
    try:
        work.wait()
    except RuntimeError as error:
        raise _lost(watcher, peer, error) from error


def _lost(watcher: Watcher, peer: int, error: RuntimeError) -> InfoProError:
    text = str(error).strip()
    reason = text.splitlines()[0].rpartition("] ")[2][:160] if text else "no answer"
    closed = any(word in text for word in CLOSED)
    who = watcher.explain_gone(peer) if closed else watcher.explain(peer)
    return AlreadyTold(reason, exit_status=1) if who is None else StageLost(who, got=reason)
