"""The same parts under `torch.distributed.pipelining`: end-to-end back-propagation through the pipeline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleavedZeroBubble,
    ScheduleZBVZeroBubble,
)

from infopro.check import unchanged
from infopro.local import LocalModel
from infopro.splitting import Flow
from infopro.splitting.program import Program

__all__ = ["BackPropagation"]

# name: (class, stages per process, whether the second stage of a process lies on the way back of a V)
SCHEDULES: dict[str, tuple[Any, int, bool]] = {
    "GPipe": (ScheduleGPipe, 1, False),
    "1F1B": (Schedule1F1B, 1, False),
    "InterleavedZeroBubble": (ScheduleInterleavedZeroBubble, 2, False),
    "ZBVZeroBubble": (ScheduleZBVZeroBubble, 2, True),
}


@dataclass
class Account:
    """What one process has computed and sent since the start."""

    busy: float = 0.0  # seconds in forward, loss, backward
    bytes_sent: int = 0

    @contextmanager
    def working(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.busy += time.perf_counter() - started


@dataclass(frozen=True)
class Wires:
    """The tensors between two stages: gloo takes contiguous ones only, so channels travel last."""

    numbers: tuple[int, ...]
    examples: tuple[Tensor, ...]  # as they travel
    permuted: tuple[bool, ...] = field(default=())

    @staticmethod
    def of(flow: Flow, numbers: tuple[int, ...]) -> Wires:
        tensors = [flow.values[number] for number in numbers]
        permuted = tuple(_channels_last(t) for t in tensors)
        examples = tuple(_outward(t, p).clone() for t, p in zip(tensors, permuted, strict=True))
        # without requires_grad here, torch sends no gradient back
        for example in examples:
            example.requires_grad_(example.is_floating_point())
        return Wires(numbers, examples, permuted)


def _channels_last(t: Tensor) -> bool:
    return t.dim() == 4 and not t.is_contiguous() and t.is_contiguous(memory_format=torch.channels_last)


def _outward(t: Tensor, permuted: bool) -> Tensor:
    return (t.permute(0, 2, 3, 1) if permuted else t).contiguous()


class PartModule(nn.Module):
    """A part of the split network as torch's pipelines want it: tensors in, a tuple of tensors out.

    Args:
        copied: what is sent is a copy: a split backward pass detaches its outputs in place, views cannot be.
    """

    def __init__(
        self, local: LocalModel, program: Program, index: int, before: Wires, after: Wires, *, copied: bool
    ):
        super().__init__()
        self.part = local.stages[index].part
        self._program, self._before, self._after, self._copied = program, before, after, copied

    def forward(self, *tensors: Tensor) -> Any:
        before, after = self._before, self._after
        found = [t.permute(0, 3, 1, 2) if p else t for t, p in zip(tensors, before.permuted, strict=True)]
        values = dict(zip(before.numbers, found, strict=True))
        flow = self.part(Flow(self._program, values, tensors[0].shape[0], tensors[0].device))
        if self.part.index == len(self._program.parts) - 1:
            return self.part.result(flow)
        sent = [_outward(flow.values[n], p) for n, p in zip(after.numbers, after.permuted, strict=True)]
        return tuple(t.clone() for t in sent) if self._copied else tuple(sent)


class AccountedStage(PipelineStage):
    """A stage that notes how long it computes and what it sends."""

    account: Account

    def forward_one_chunk(self, *arguments: Any, **options: Any) -> Any:
        with self.account.working():
            return super().forward_one_chunk(*arguments, **options)

    def backward_one_chunk(self, *arguments: Any, **options: Any) -> Any:
        with self.account.working():
            return super().backward_one_chunk(*arguments, **options)

    def backward_weight_one_chunk(self, *arguments: Any, **options: Any) -> Any:
        with self.account.working():
            return super().backward_weight_one_chunk(*arguments, **options)

    def get_fwd_send_ops(self, fwd_chunk_id: int) -> list[dist.P2POp]:
        return self._counted(super().get_fwd_send_ops(fwd_chunk_id))

    def get_bwd_send_ops(self, bwd_chunk_id: int) -> list[dist.P2POp]:
        return self._counted(super().get_bwd_send_ops(bwd_chunk_id))

    def _counted(self, operations: list[dist.P2POp]) -> list[dist.P2POp]:
        self.account.bytes_sent += sum(operation.tensor.nbytes for operation in operations)
        return operations


class BackPropagation:
    """One process of a pipeline of torch's.

    Args:
        local: its parts are the stages, its heads are left alone.
        images: a whole batch.
    """

    def __init__(self, local: LocalModel, images: Tensor, *, schedule: str, microbatches: int):
        kind, per_process, v_shaped = SCHEDULES[schedule]
        rank, world, total = dist.get_rank(), dist.get_world_size(), len(local.stages)
        assert total == world * per_process
        second = total - 1 - rank if v_shaped else rank + world
        own = [rank, second][:per_process]
        self.account = Account()
        self._local, self._first, self._last = local, 0 in own, total - 1 in own
        program = local.start((images,)).program
        wires = _wires(local, images[: len(images) // microbatches])
        stages = [
            self._stage(program, index, wires, total, copied=per_process > 1 and index + 1 < total)
            for index in own
        ]
        self.modules = [local.stages[index].part for index in own]
        self._schedule = kind(stages if per_process > 1 else stages[0], microbatches, loss_fn=self._loss)

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for module in self.modules for parameter in module.parameters()]

    def step(self, images: Tensor, targets: Tensor) -> None:
        """Gradients of one batch for this process's stages."""
        inputs = (images,) if self._first else ()
        target = targets if self._last else None
        self._schedule.step(*inputs, target=target, return_outputs=False)

    def _stage(
        self, program: Program, index: int, wires: list[Wires], total: int, *, copied: bool
    ) -> PipelineStage:
        module = PartModule(self._local, program, index, wires[index], wires[index + 1], copied=copied)
        stage = AccountedStage(
            module,
            index,
            total,
            torch.device("cpu"),
            input_args=wires[index].examples,
            output_args=wires[index + 1].examples,
        )
        stage.account = self.account
        return stage

    def _loss(self, output: Tensor, targets: Tensor) -> Tensor:
        with self.account.working():
            return self._local.task.loss(output, targets)


def _wires(local: LocalModel, images: Tensor) -> list[Wires]:
    """What goes into each stage, and what comes out of the last, for one microbatch."""
    with unchanged(local), torch.no_grad():
        flow = local.start((images,))
        found = [Wires(flow.program.inputs, (images,), (False,))]
        for index, stage in enumerate(local.stages[:-1]):
            flow = stage.part(flow)
            found.append(Wires.of(flow, flow.program.parts[index + 1].needs))
        last = local.stages[-1].part
        output = last.result(last(flow))
    return [*found, Wires((), (output.clone().requires_grad_(),), ())]
