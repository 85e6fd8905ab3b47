"""Modules at their own pace: each trains on the latest batches that it has, new or not, and waits for nobody.

Decoupled greedy learning with replay buffers (Belilovsky, Eickenberg, Oyallon, arXiv 2106.06401), which was
simulated in one process there. Features are stale here: they were made by weights of some updates ago.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from torch import Tensor

from infopro.engines._base import Batches, Phase, Work
from infopro.engines.channel import Header, Sender, Watcher
from infopro.engines.packing import Layout, unpack
from infopro.engines.pipeline import Pipeline
from infopro.engines.replay import ReplayBuffer
from infopro.errors import NotYetSupported, StageLost
from infopro.splitting import Flow

__all__ = ["Decoupled", "Freshness"]

_PATIENCE = 0.2  # seconds


@dataclass(frozen=True)
class Freshness:
    """What the batches that a module trained on were like."""

    mean_staleness: float  # updates of the module before, since it made them
    most_staleness: int
    mean_uses: float  # how often a batch had been trained on, that time included
    unread: int  # batches that were overwritten before they were read
    unsent: int  # batches that this module made, and that the next one had no room for


class _Drawn(Work):
    """Work of a size of its own: the epoch's batch of this step may be larger or smaller."""

    @property
    def total(self) -> int:
        return self.size


class Decoupled(Pipeline):
    """One process of a decoupled run.

    Args:
        replay: batches that are kept to train on.
        most_uses: how often a batch may be trained on; None: as often as nothing newer is there.
    """

    def __init__(self, *arguments: Any, replay: int = 4, most_uses: int | None = None, **options: Any):
        super().__init__(*arguments, **options)
        if self.replicas > 1:
            raise NotYetSupported(
                "a decoupled run has one process per module",
                got=f"{self.replicas} processes for each",
                remedy="start as many processes as modules",
            )
        self._buffer: ReplayBuffer[tuple[Header, Layout, list[Tensor]]] = ReplayBuffer(
            capacity=replay, most_uses=most_uses
        )
        self._out = None if self._after is None else _Outbox(self._after)
        self._in = None if self._before is None else threading.Thread(target=self._receive, daemon=True)
        self._updates = 0
        self._seen: list[tuple[int, int]] = []  # staleness and uses of each step
        self._told = (0, 0)  # unread and unsent, as far as they were told
        if self._in is not None:
            self._in.start()

    def feed(self, phase: Phase, batches: Callable[[], Batches]) -> Iterator[Work]:
        if not phase.training:
            yield from super().feed(phase, batches)
        elif self._before is None:
            yield from self._images(phase, batches)
        else:
            for step in range(len(phase.sizes)):
                if self._stop():
                    self.stopped = True
                    return
                try:
                    work = self._draw(phase, step)
                except StageLost:  # or the module before was stopped before its first batch
                    self.stopped = self._stop()
                    if not self.stopped:
                        raise
                    return
                yield work

    def feed_on(self, batches: Callable[[int], tuple[Phase, Batches]]) -> Iterator[Work]:
        """After its own last step: batches to run forward for the next module, until that one has finished.

        Args:
            batches: of the first module: the further epochs' phase and images, by a number from 1.
        """
        if self._after is None:
            return
        for further in count(1):
            phase, images = batches(further)
            drawn = (self._draw(phase, step) for step in range(len(phase.sizes)))
            for work in drawn if self._before is not None else self._images(phase, lambda: images):  # noqa: B023
                if self.processes.is_told(f"finished {self.stages.stop}"):
                    return
                yield work
            if self.stopped:
                return

    def finish_training(self, epochs: int) -> int:
        """Tell the module before that no more batches are wanted, the next one that none will come.

        Returns when all have done so, however long the slowest takes; from then on `stopped` is the same
        everywhere.

        Args:
            epochs: that this module has finished.

        Returns:
            The fewest that a module has.

        Raises:
            StageLost: a module that has given no sign of life for as long as the processes' timeout.
        """
        own, store = self.stages.start, self.processes.store
        store.set(f"training/{own}", json.dumps([epochs, self.stopped]))
        self.processes.tell(f"finished {own}")
        if self._out is not None:
            self._out.close()
        if self._in is not None:
            self._in.join()
        self._wait_for_all()
        everyones = [json.loads(store.get(f"training/{k}")) for k in range(len(self.local.stages))]
        self.stopped = any(stopped for _, stopped in everyones)
        return min(int(number) for number, _ in everyones)

    def _wait_for_all(self) -> None:
        signs, begun = self.processes.signs, time.time()
        with self.span("receive"):
            for stage in range(len(self.local.stages)):
                while not self.processes.is_told(f"finished {stage}"):
                    silent = min(signs.silence(stage), time.time() - begun)
                    if silent > self.processes.timeout.total_seconds():
                        raise StageLost(self.explain(stage))
                    time.sleep(_PATIENCE)

    def count_update(self) -> None:
        """Its own weights have changed: what it makes from now on is newer."""
        self._updates += 1

    def freshness(self) -> Freshness:
        """Of the steps since the last call."""
        stale, uses = [s for s, _ in self._seen], [u for _, u in self._seen]
        self._seen = []
        number = max(len(stale), 1)
        before = self._told
        self._told = self._buffer.overwritten_unread, 0 if self._out is None else self._out.unsent
        return Freshness(
            sum(stale) / number,
            max(stale, default=0),
            sum(uses) / number,
            self._told[0] - before[0],
            self._told[1] - before[1],
        )

    def _draw(self, phase: Phase, step: int) -> Work:
        with self.span("receive", step):
            try:
                drawn = self._buffer.draw(timeout=self.processes.timeout.total_seconds())
            except (TimeoutError, EOFError) as error:
                raise StageLost(self.explain(self.stages.start - 1), got=str(error)) from error
        self._seen.append((drawn.staleness, drawn.uses))
        header, layout, buffers = drawn.item
        # copied: the module may write in place on what it reads, and this batch may be drawn again
        work = self._unpacked(header, unpack(layout, [buffer.clone() for buffer in buffers]), phase)
        return _Drawn(work.flow, work.batch, phase, step)

    def _receive(self) -> None:
        """In a thread of its own: put whatever comes into the buffer, until the sender stops."""
        assert self._before is not None
        try:
            for header, layout, buffers in self._before.unforeseen():
                self._buffer.put((header, layout, buffers), header.step)
            self._buffer.finish()
        except BaseException as error:
            self._buffer.fail(error)

    def _is_to_stop(self, phase: Phase) -> bool:
        """Not in the one test, behind all training: a checkpoint cannot say that it is still to come."""
        return phase.training and super()._is_to_stop(phase)

    def _say_stop(self, header: Header) -> None:
        """Each process asks for itself whether to stop; its outbox says that nothing comes any more."""

    def _watcher(self) -> Watcher:
        return _Unwatched(self)

    def _passing_on(self, index: int, work: Work) -> Callable[[Flow], None] | None:
        if not work.phase.training or self._out is None:
            return super()._passing_on(index, work)
        out, header = self._out, Header(True, work.phase.epoch, self._updates, work.size)

        def pass_on(flow: Flow) -> None:
            message = header, self._message(flow, work, index + 1)
            while not out.offer(message, patient=not self.local.training):
                if self.local.training or self.processes.is_told(f"finished {index + 1}"):
                    out.unsent += 1
                    return

        return pass_on


class _Unwatched:
    """For threads beside the module's own: their waiting is nobody's."""

    def __init__(self, engine: Pipeline):
        self._engine = engine

    def span(self, kind: Any, step: int | None = None) -> AbstractContextManager[object]:
        return nullcontext()

    def explain(self, waited_for: int) -> str:
        return self._engine.explain(waited_for)

    def explain_gone(self, peer: int) -> str | None:
        return self._engine.explain_gone(peer)


class _Outbox:
    """Sends from a thread of its own, so that its module never waits: what finds no room is not sent."""

    def __init__(self, sender: Sender):
        self._sender = sender
        self._waiting: queue.Queue[tuple[Header, Sequence[Tensor]] | None] = queue.Queue(maxsize=1)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()
        self.unsent = 0

    def offer(self, message: tuple[Header, Sequence[Tensor]], *, patient: bool) -> bool:
        """Whether there was room; a module that has nothing else to do waits a while for it."""
        if self._failure is not None:
            raise self._failure
        try:
            self._waiting.put(message, timeout=_PATIENCE if patient else 0.0, block=patient)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """Send what is there, and that it was all."""
        while self._failure is None:
            with suppress(queue.Full):
                self._waiting.put(None, timeout=_PATIENCE)
                break
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _send(self) -> None:
        header = Header(True, 0, 0, 0)
        try:
            while (item := self._waiting.get()) is not None:
                header, tensors = item
                self._sender.send(header, tensors)
            self._sender.stop(header)
            self._sender.drain()
        except BaseException as error:
            self._failure = error
