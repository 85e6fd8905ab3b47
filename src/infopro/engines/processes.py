"""The processes of one run: started by torchrun, checked against each other, named when one is lost."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.device_mesh import DeviceMesh

from infopro.ending import ended_at_once
from infopro.engines.lifesigns import LifeSigns
from infopro.engines.meeting import first_line, shared_store
from infopro.errors import AlreadyTold, BadConfiguration, InfoProError, StageLost

__all__ = ["CLOSED", "Processes", "joined"]

# what torch says where a connection is closed, and which of its errors are of collectives
CLOSED = ("closed", "reset", "Broken pipe")
_COLLECTIVE = ("gloo", "NCCL", "Timed out waiting")
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05  # seconds between two looks at the store
_LONGEST_WAIT = 7 * 24 * 3600  # seconds


@dataclass(frozen=True)
class Processes:
    """All processes of one run, as one of them sees them: rank = module · replicas + replica."""

    rank: int
    num_stages: int  # along the pipeline; 1 where every process holds all modules
    replicas: int
    mesh: DeviceMesh  # ("pipeline", "data")
    store: Store  # of this start of the processes
    launch: Store  # of all their starts, where torchrun starts them anew
    timeout: timedelta
    signs: LifeSigns

    @property
    def stage(self) -> int:
        return self.rank // self.replicas

    @property
    def replica(self) -> int:
        return self.rank % self.replicas

    @property
    def writer(self) -> int:
        """The rank that logs: the first replica of the last module."""
        return (self.num_stages - 1) * self.replicas

    def agree(self, name: str, value: Any = None) -> Any:
        """What the process that logs says about `name`, on every process; a plain value."""
        if self.rank == self.writer:
            self.store.set(f"agreed/{name}", json.dumps(value))
        return json.loads(self._get(f"agreed/{name}", self.writer))

    def require_same(self, described: Mapping[str, str]) -> None:
        """Refuse to begin where processes differ in code, configuration or data.

        Args:
            described: a hash, or any short text, by what it is of.

        Raises:
            BadConfiguration: on every process; it names what differs and where.
        """
        self.store.set(f"described/{self.rank}", json.dumps(dict(described)))
        everyone = [json.loads(self._get(f"described/{r}", r)) for r in range(dist.get_world_size())]
        first = everyone[0]
        differences = [
            f"{what} ({text!r} in process {rank}, {first.get(what)!r} in process 0)"
            for rank, found in enumerate(everyone)
            for what, text in found.items()
            if text != first.get(what)
        ]
        if differences:
            raise BadConfiguration(
                "the processes of this run are not alike",
                got="; ".join(differences[:4]),
                remedy="start all of them from the same source, with the same options and data",
            )

    def wait_for_all(self, name: str) -> None:
        """Return when every process has come to this point."""
        self.store.set(f"reached/{name}/{self.rank}", "")
        everybody = range(dist.get_world_size())
        for rank in everybody:
            self._get(f"reached/{name}/{rank}", rank)
        # without torchrun the store is in the first process, which must not end while others ask it
        if self.rank > 0:
            self.store.set(f"passed/{name}/{self.rank}", "")
        else:
            for rank in everybody[1:]:
                self._get(f"passed/{name}/{rank}", rank)

    def remember(self, what: str) -> None:
        """Note something for the case that torchrun starts all processes anew."""
        self.launch.set(f"remembered/{what}", "")

    def remembers(self, what: str) -> bool:
        """Whether these processes, or those that they replace, have noted it."""
        return bool(self.launch.check([f"remembered/{what}"]))

    def tell(self, what: str) -> None:
        """Let every process know something."""
        with suppress(RuntimeError):  # the store's process is gone: so are the others
            self.store.set(f"news/{what}", "")

    def is_told(self, what: str) -> bool:
        """Whether any process has told it."""
        try:
            return bool(self.store.check([f"news/{what}"]))
        except (RuntimeError, dist.DistError) as error:
            raise StageLost(self.signs.explain(0), got=first_line(error)) from error

    def _get(self, key: str, rank: int) -> bytes:
        """Waits in Python: in the store's own wait no signal would be noticed."""
        end, pause = time.monotonic() + self.timeout.total_seconds(), _SHORTEST_PAUSE
        try:
            while not self.store.check([key]) and time.monotonic() < end:
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            if self.store.check([key]):
                return bytes(self.store.get(key))
        except (RuntimeError, dist.DistError) as error:
            raise StageLost(self.signs.explain(rank), got=first_line(error)) from error
        seconds = self.timeout.total_seconds()
        raise StageLost(self.signs.explain(rank), got=f"no word from process {rank} in {seconds:g} s")


@contextmanager
def joined(
    *, num_stages: int | None, device: torch.device, timeout_seconds: float = 300.0
) -> Iterator[Processes]:
    """Meet the other processes that torchrun has started; part from them at the end.

    Args:
        num_stages: along the pipeline; every further factor of the world size is replicas. None: one, all
            processes are replicas.
        timeout_seconds: after which a process that gives nothing is taken for lost.

    Raises:
        BadConfiguration: not started by torchrun; a number of processes that is no multiple of the modules; a
            port that is taken.
    """
    _refuse_nesting_and_endless_waits(timeout_seconds)
    timeout = timedelta(seconds=timeout_seconds)
    with ended_at_once():
        launch, rank, world = shared_store(timeout)
    # a restarted run meets in the same store, and must not read what the lost one has left there
    store = PrefixStore(f"infopro/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", launch)
    store.set_timeout(timeout)
    try:
        stages = num_stages or 1
        _refuse_other_number(world, stages)
        _refuse_small_machine(device)
        with LifeSigns(store, rank, world // stages).beating(timeout=timeout) as signs:
            with ended_at_once():
                mesh = _connect(store, rank, world, stages, device, timeout)
            try:
                with _naming_the_lost(signs):
                    yield Processes(rank, stages, world // stages, mesh, store, launch, timeout, signs)
            except BaseException:
                signs.end()  # before the connections close: the others see that this one was not lost
                raise
            finally:
                dist.destroy_process_group()
    except InfoProError as error:
        # behind a lost process all are lost: the first to notice speaks for the others
        what = "lost" if isinstance(error, StageLost) else str(error)
        if not _first_to_tell(store, what):
            raise AlreadyTold(str(error), exit_status=error.exit_status) from error
        raise


@contextmanager
def _naming_the_lost(signs: LifeSigns) -> Iterator[None]:
    """What torch says of a collective that has lost a process: which one it was."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        ours = isinstance(error, dist.DistError) or any(word in text for word in _COLLECTIVE)
        if isinstance(error, InfoProError) or not ours:
            raise
        closed = any(word in text for word in CLOSED)
        who = signs.explain_lost() if closed else signs.explain(0)
        if who is None:  # it has said itself why it ended
            raise AlreadyTold(first_line(error), exit_status=1) from error
        raise StageLost(who, got=first_line(error).rpartition("] ")[2]) from error


def _connect(
    store: Store, rank: int, world: int, stages: int, device: torch.device, timeout: timedelta
) -> DeviceMesh:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
        return _mesh(torch.arange(world).view(stages, -1), rank, device, timeout)
    except (RuntimeError, dist.DistError) as error:
        raise StageLost(
            f"the {world} processes did not find each other in {timeout.total_seconds():.0f} s",
            got=first_line(error),
            remedy="start all of them, or raise --timeout",
        ) from error


def _mesh(ranks: torch.Tensor, rank: int, device: torch.device, timeout: timedelta) -> DeviceMesh:
    """As `init_device_mesh`, whose groups would wait half an hour for a process that is lost meanwhile."""
    groups = [_group_of(rank, alike.tolist(), timeout) for alike in (ranks.T, ranks)]
    return DeviceMesh.from_group(groups, device.type, ranks, mesh_dim_names=("pipeline", "data"))


def _group_of(rank: int, members: list[list[int]], timeout: timedelta) -> dist.ProcessGroup:
    """This process's group; every process makes all of them, in one order."""
    made = {tuple(ranks): dist.new_group(ranks, timeout=timeout) for ranks in members}
    return next(cast(dist.ProcessGroup, group) for ranks, group in made.items() if rank in ranks)


def _first_to_tell(store: Store, message: str) -> bool:
    try:
        return int(store.add(f"told/{hashlib.sha256(message.encode()).hexdigest()}", 1)) == 1
    except (RuntimeError, dist.DistError):
        return True  # the store's process is gone


def _refuse_nesting_and_endless_waits(timeout_seconds: float) -> None:
    if dist.is_initialized():
        raise BadConfiguration(
            "this process has joined others already",
            remedy="leave the outer joined(), or torch.distributed's process group, first",
        )
    if not 0 < timeout_seconds <= _LONGEST_WAIT:
        raise BadConfiguration(
            "timeout is out of range",
            got=timeout_seconds,
            allowed=f"above 0, at most {_LONGEST_WAIT} seconds",
        )


def _refuse_other_number(world: int, stages: int) -> None:
    if world % stages:
        raise BadConfiguration(
            "a pipeline needs one process per module and replica",
            got=f"{world} processes for {stages} modules",
            allowed=f"{stages} or a multiple of it",
            remedy=f"torchrun --nproc-per-node={stages} -m infopro train ...",
        )


def _refuse_small_machine(device: torch.device) -> None:
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadConfiguration(
            "more processes than GPUs on this machine",
            got=f"process {os.environ.get('LOCAL_RANK')} of {torch.cuda.device_count()} GPUs",
            remedy="lower --nproc-per-node, or use several machines",
        )
