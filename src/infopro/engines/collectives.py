"""Collectives over the replicas of a module: sums and gathers with gradients, buffers in one piece.

torch's own autograd-aware collectives are deprecated (torch 2.14) or bound to its compiler, and its gather
takes parts of one size only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = [
    "average_buffers",
    "broadcast_from_first",
    "gather_numbers",
    "gather_rows",
    "sizes_of_parts",
    "sum_over_ranks",
]


def sum_over_ranks(tensor: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The sum of the ranks' tensors, on every rank; a rank's gradient is the sum of those of all ranks."""
    total: Tensor = _SumOverRanks.apply(tensor, group)
    return total


def gather_rows(rows: Tensor, sizes: Sequence[int], group: dist.ProcessGroup) -> Tensor:
    """The ranks' rows one below the other, on every rank; gradients as those of `sum_over_ranks`.

    Shapes:
        [sizes[rank], ...] -> [sum(sizes), ...]
    """
    gathered: Tensor = _GatherRows.apply(rows, tuple(sizes), group)
    return gathered


def sizes_of_parts(rows: Tensor, group: dist.ProcessGroup) -> list[int]:
    """How many rows each rank has; waits for the device."""
    own = torch.tensor([rows.shape[0]], device=rows.device)
    sizes = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(sizes, own, group=group)
    return torch.cat(sizes).tolist()


def gather_numbers(values: Sequence[float], group: dist.ProcessGroup) -> list[list[float]]:
    """Every rank's numbers, as many on each, first rank first."""
    own = torch.tensor(values, dtype=torch.float64)
    found = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(found, own, group=group)
    return [numbers.tolist() for numbers in found]


@torch.no_grad()
def average_buffers(modules: Iterable[nn.Module], group: dist.ProcessGroup) -> None:
    """Give every floating-point buffer its mean over the ranks: BatchNorm statistics of different parts.

    For before an evaluation or a checkpoint, where BatchNorm is not synchronised. One collective for all of
    them. It sums in float64, so that buffers which are equal already stay as they are, bit for bit. Integer
    buffers (`num_batches_tracked`) are the same on every rank, and are left alone.
    """
    found = {id(b): b for module in modules for b in module.buffers() if b.is_floating_point()}
    buffers = list(found.values())
    if buffers:
        flat = torch.cat([buffer.double().flatten() for buffer in buffers])
        dist.all_reduce(flat, group=group)
        _spread(flat / dist.get_world_size(group), buffers)


@torch.no_grad()
def broadcast_from_first(tensors: Iterable[Tensor], group: dist.ProcessGroup) -> None:
    """Give every rank the values of the group's first, in one collective for each type."""
    of_type: dict[torch.dtype, list[Tensor]] = {}
    for tensor in {id(t): t for t in tensors}.values():
        of_type.setdefault(tensor.dtype, []).append(tensor)
    for dtype, alike in of_type.items():
        flat = torch.cat([tensor.detach().flatten() for tensor in alike])
        # not every backend sends truth values
        flat = flat.to(torch.uint8) if dtype == torch.bool else flat
        dist.broadcast(flat, group=group, group_src=0)
        _spread(flat, alike)


def _spread(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, piece in zip(tensors, pieces, strict=True):
        tensor.copy_(piece.view(tensor.shape))


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _summed(tensor, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _summed(gradient, ctx.group), None


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: tuple[int, ...], group: dist.ProcessGroup) -> Tensor:
        ctx.group, ctx.sizes = group, sizes
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])  # gloo gathers parts of one size only
        padded[: rows.shape[0]] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        rank = dist.get_rank(ctx.group)
        return torch.split(_summed(gradient, ctx.group), ctx.sizes)[rank], None, None


def _summed(tensor: Tensor, group: dist.ProcessGroup) -> Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total
