"""BatchNorm whose statistics are those of the whole batch, over the ranks that hold its parts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, SupportsIndex

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from infopro.engines.collectives import sum_over_ranks
from infopro.errors import BadInput, NotYetSupported
from infopro.heads import at_least_float32

__all__ = [
    "SyncedBatchNorm1d",
    "SyncedBatchNorm2d",
    "SyncedBatchNorm3d",
    "synchronise_batch_norm",
]


class _Synced(nn.SyncBatchNorm):
    """torch's SyncBatchNorm on GPUs, the plain formula on CPUs."""

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and input.device.type == "cpu" and dist.is_initialized()):
            return super().forward(input)
        self._check_input_dim(input)
        wide = at_least_float32(input)
        mean_C, variance_C, count = _statistics(wide, self.process_group)
        if self.track_running_stats:
            self._track(mean_C, variance_C, count)
        normal = (wide - _per_channel(mean_C, wide)) * _per_channel(torch.rsqrt(variance_C + self.eps), wide)
        if self.weight is not None:
            normal = normal * _per_channel(self.weight, input)
        if self.bias is not None:
            normal = normal + _per_channel(self.bias, input)
        return normal.to(input.dtype)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        """A copy and a pickle are of the ordinary class: neither can hold a process group."""
        ordinary = next(plain for plain, synced in _SYNCED.items() if type(self) is synced)
        state = {name: value for name, value in self.__dict__.items() if name != "process_group"}
        return ordinary.__new__, (ordinary,), state

    @torch.no_grad()
    def _track(self, mean_C: Tensor, variance_C: Tensor, count: float) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        # without a momentum, the mean over all batches so far
        momentum = 1.0 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), momentum)
        unbiased_C = variance_C * (count / (count - 1))
        self.running_var.lerp_(unbiased_C.to(self.running_var.dtype), momentum)


class SyncedBatchNorm1d(_Synced, nn.BatchNorm1d):
    """BatchNorm1d over the parts of a batch; made by `synchronise_batch_norm`."""

    _check_input_dim = nn.BatchNorm1d._check_input_dim


class SyncedBatchNorm2d(_Synced, nn.BatchNorm2d):
    """BatchNorm2d over the parts of a batch; made by `synchronise_batch_norm`."""

    _check_input_dim = nn.BatchNorm2d._check_input_dim


class SyncedBatchNorm3d(_Synced, nn.BatchNorm3d):
    """BatchNorm3d over the parts of a batch; made by `synchronise_batch_norm`."""

    _check_input_dim = nn.BatchNorm3d._check_input_dim


_SYNCED: dict[type[_BatchNorm], type[_BatchNorm]] = {
    nn.BatchNorm1d: SyncedBatchNorm1d,
    nn.BatchNorm2d: SyncedBatchNorm2d,
    nn.BatchNorm3d: SyncedBatchNorm3d,
}


def synchronise_batch_norm(modules: Iterable[nn.Module], group: dist.ProcessGroup) -> None:
    """Let every BatchNorm in these modules normalise by the whole batch of the group's ranks, while training.

    In place, by a change of class, as FSDP2 does it: the network, its parts and hooks all refer to these very
    modules, so new ones, as torch's `convert_sync_batchnorm` makes, would replace them in one place only. On
    a GPU torch's own SyncBatchNorm runs; on a CPU, which it refuses, the plain formula. Parts of unequal size
    count by their size; modules in evaluation mode do what they did.

    Raises:
        NotYetSupported: a BatchNorm of another class, such as timm's BatchNormAct2d: its own forward would be
            lost. None is changed then.
    """
    found = {m: name for module in modules for name, m in module.named_modules() if isinstance(m, _BatchNorm)}
    known = (*_SYNCED, *_SYNCED.values(), nn.SyncBatchNorm)
    foreign = [
        f"{type(m).__name__} at {name.replace('/', '.')}" for m, name in found.items() if type(m) not in known
    ]
    if foreign:
        raise NotYetSupported(
            "this kind of BatchNorm cannot be synchronised",
            got=foreign[0] + (f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""),
            allowed="BatchNorm1d, BatchNorm2d, BatchNorm3d",
            remedy="train without synchronised BatchNorm",
        )
    for module in found:
        module.__class__ = _SYNCED.get(type(module), type(module))
        module.process_group = group  # type: ignore[assignment]


def _statistics(input: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor, float]:
    """Mean and biased variance per channel of the whole batch, and how many numbers they are of.

    In two passes: the difference of two large sums would cost the digits of a small variance.
    """
    group = group or dist.group.WORLD
    assert group is not None
    others = [dimension for dimension in range(input.dim()) if dimension != 1]
    own = input.new_full((1,), input.numel() / input.shape[1])
    sums = sum_over_ranks(torch.cat([input.sum(others), own]), group)
    count = sums[-1].item()
    if count <= 1:
        raise BadInput("BatchNorm needs more than one value per channel to train", got=int(count))
    mean_C = sums[:-1] / count
    squares_C = (input - _per_channel(mean_C, input)).square().sum(others)
    return mean_C, sum_over_ranks(squares_C, group) / count, count


def _per_channel(value_C: Tensor, like: Tensor) -> Tensor:
    return value_C.view(1, -1, *[1] * (like.dim() - 2))
