"""Data parallelism within a module: every rank trains a copy of a stage on its part of the batch.

Each stage is a root of its own for torch's DistributedDataParallel. One wrapper around several local backward
passes reduces every parameter once for each of them, and lets the copies drift apart when one of them steps
in between.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from infopro.engines.collectives import broadcast_from_first
from infopro.engines.parts_of_batches import scaled_gradient
from infopro.errors import BadConfiguration
from infopro.local import LocalStage
from infopro.splitting import Flow
from infopro.splitting.record import undisturbed
from infopro.types import Batch

if TYPE_CHECKING:
    from torch._C._distributed_c10d import GradBucket

__all__ = ["Replica", "StageRoot", "replicate", "without_gradient"]

Losses = Mapping[str, Tensor]
Run = Callable[[], tuple[Flow, Losses]]


class StageRoot(nn.Module):
    """What DDP and FSDP see of a stage: a call without arguments, and one output, the loss to differentiate.

    Both search all that goes in and out for tensors: they would take the features that cross the cut for an
    output that is differentiated, and walk through the recorded program.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left: tuple[Flow, Losses] | None = None

    def forward(self, run: Run) -> Tensor:
        flow, losses = run()
        self.left = flow.detached(), {name: value.detach() for name, value in losses.items()}
        return losses["total"]


class Replica:
    """A copy of a stage on one rank: called like the stage, its gradients become the mean over the ranks.

    Between the backward pass and `wait` the gradients are under way: clip, unscale or step them after it.

    Args:
        root: what the stage's parameters are registered with.
        wrapped: what runs it; the root itself where there is nothing to reduce.
    """

    def __init__(self, stage: LocalStage, root: StageRoot, wrapped: nn.Module):
        self.stage = stage
        self._root = root
        self._wrapped = wrapped

    def __call__(
        self,
        flow: Flow,
        batch: Batch,
        pass_on: Callable[[Flow], object] | None = None,
        *,
        scale: float = 1.0,
    ) -> tuple[Flow, Losses]:
        """As `LocalStage.forward`, on this rank's part of the batch; losses are means over the part.

        Args:
            scale: that the gradient of "total" is multiplied by, see `gradient_scale`; its value is not.
        """
        total = self._wrapped(lambda: self.stage(flow, batch, pass_on))
        assert self._root.left is not None
        (flow, losses), self._root.left = self._root.left, None
        return flow, {**losses, "total": scaled_gradient(total, scale)}

    def wait(self) -> None:
        """Return when the gradients of the last backward pass are complete, the same on every rank."""

    @contextmanager
    def whole(self) -> Iterator[None]:
        """While open, the network's own modules hold all of their parameters, as they do here anyway."""
        yield

    @property
    def numbers_reduced(self) -> int:
        """Gradients that this rank has averaged with the others since the start, counted one by one."""
        return 0


def replicate(
    stage: LocalStage,
    group: dist.ProcessGroup,
    *,
    unused: Collection[str] = (),
    find_unused: bool = False,
    bucket_mb: float | None = None,
) -> Replica:
    """Make the gradients of a stage the mean over the ranks of a group, reduced while the next stages run.

    Parameters and buffers take the values of the group's first rank; buffers then go their own ways, see
    `average_buffers`. A stage without trainable parameters passes through. Give losses and BatchNorm that
    communicate a group of their own: within one NCCL group they would queue behind the gradients under way.

    Args:
        unused: names, as in `stage.named_parameters()`, of parameters that never get a gradient, such as an
            unused class token: see `without_gradient`. The same on every rank.
        find_unused: for parameters that get a gradient in some steps only. torch then waits at the end of the
            backward pass: nothing overlaps with the next stage.
        bucket_mb: gradients are sent in pieces of about this size, MiB; torch's default is 25.

    Raises:
        BadConfiguration: an unknown name in `unused`.
    """
    named = dict(stage.named_parameters())
    unknown = sorted(set(unused) - named.keys())
    if unknown:
        raise BadConfiguration("the stage has no such parameter", got=", ".join(unknown))
    broadcast_from_first([*named.values(), *stage.buffers()], group)
    reduced = {name: p for name, p in named.items() if p.requires_grad and name not in unused}
    if not reduced:
        root = StageRoot()
        return Replica(stage, root, root)
    idle = {name: p for name, p in named.items() if name in unused}
    return _Reduced(stage, reduced, idle, group, find_unused=find_unused, bucket_mb=bucket_mb)


class _Reductions:
    """The sums under way of one stage. DDP holds them: with a reference to it, neither could be freed."""

    def __init__(self, group: dist.ProcessGroup):
        self.group = group
        self.under_way: list[dist.Work] = []
        self.numbers = 0

    def start(self, bucket: GradBucket) -> Future[Tensor]:
        """Begin to average a bucket in place, and tell DDP that it is done.

        DDP's backward would wait for the sums at its end. It does not look at the values: with
        `gradient_as_bucket_view` every `.grad` is a view of the bucket, and a hook that returns the bucket's
        own buffer leaves nothing to copy back. So the sum may arrive later, in the same memory.
        """
        gradients = bucket.buffer()
        gradients.div_(dist.get_world_size(self.group))
        work = dist.all_reduce(gradients, group=self.group, async_op=True)
        assert work is not None
        self.under_way.append(work)
        self.numbers += gradients.numel()
        done: Future[Tensor] = Future()
        done.set_result(gradients)
        return done

    def finish(self) -> None:
        for work in self.under_way:
            work.wait()
        self.under_way.clear()


class _Reduced(Replica):
    """A stage below its own DistributedDataParallel."""

    def __init__(
        self,
        stage: LocalStage,
        reduced: Mapping[str, nn.Parameter],
        idle: Mapping[str, nn.Parameter],
        group: dist.ProcessGroup,
        *,
        find_unused: bool,
        bucket_mb: float | None,
    ):
        root = StageRoot()
        for name, parameter in reduced.items():
            root.register_parameter(name.replace(".", "/"), parameter)
        wrapped = DistributedDataParallel(
            root,  # without buffers: there are none to broadcast
            process_group=group,
            gradient_as_bucket_view=True,
            find_unused_parameters=find_unused,
            bucket_cap_mb=bucket_mb,
        )
        self._reductions = _Reductions(group)
        # DDP reads the annotations of its hook: a lambda has none
        wrapped.register_comm_hook(self._reductions, lambda state, bucket: state.start(bucket))
        super().__init__(stage, root, wrapped)
        self._reduced, self._idle = reduced, idle
        self._numbers = sum(parameter.numel() for parameter in reduced.values())
        self._before: int | None = None  # numbers reduced before the step whose gradients are awaited

    @property
    def numbers_reduced(self) -> int:
        """Gradients that this rank has averaged with the others since the start, counted one by one."""
        return self._reductions.numbers

    def __call__(self, *arguments: Any, **options: Any) -> tuple[Flow, Losses]:
        self._reductions.finish()  # the next backward pass writes into the same memory
        if torch.is_grad_enabled():
            self._before = self._reductions.numbers
        return super().__call__(*arguments, **options)

    def wait(self) -> None:
        """Return when the gradients of the last backward pass are complete, the same on every rank.

        Raises:
            BadConfiguration: gradients that are no mean, since parameters got none, or got one against what
                `unused` says.
        """
        self._reductions.finish()
        if self._before is None:
            return
        complete, self._before = self._reductions.numbers == self._before + self._numbers, None
        if not complete:
            raise BadConfiguration(
                "parameters got no gradient, and torch waits for it before it averages those of the others",
                got=_some(name for name, p in self._reduced.items() if p.grad is None),
                remedy="name them in unused if they never get one, or pass find_unused=True",
            )
        if any(parameter.grad is not None for parameter in self._idle.values()):
            raise BadConfiguration(
                "parameters that were called unused got a gradient, which no rank has averaged",
                got=_some(name for name, p in self._idle.items() if p.grad is not None),
                remedy="leave them out of unused, or pass find_unused=True",
            )


def without_gradient(stage: LocalStage, flow: Flow, batch: Batch) -> tuple[str, ...]:
    """Names of the trainable parameters that the stage's loss does not depend on, found by one step.

    Leaves no trace in gradients, buffers and random streams. Where the stage communicates, all ranks call it.
    """
    trainable = {name: p for name, p in stage.named_parameters() if p.requires_grad}
    with undisturbed(stage):
        total = stage(flow, batch)[1]["total"]
        if not total.requires_grad:
            return tuple(trainable)
        gradients = torch.autograd.grad(total, list(trainable.values()), allow_unused=True)
    return tuple(name for name, g in zip(trainable, gradients, strict=True) if g is None)


def _some(names: Iterable[str]) -> str | None:
    found = list(names)
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "") or None
