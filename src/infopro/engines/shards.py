"""Sharded data parallelism within a module: a rank stores one share of the parameters, gradients and moments.

Each stage is a root of its own for torch's `fully_shard` (FSDP2). Since a stage's backward pass follows its
forward pass at once, its parameters stay gathered between the two: one all-gather and one reduce-scatter for
each stage and step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.utils._pytree import tree_map

from infopro.engines.collectives import broadcast_from_first
from infopro.engines.replicas import Replica, StageRoot
from infopro.errors import NotYetSupported
from infopro.local import LocalStage
from infopro.splitting import Flow
from infopro.types import Batch

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

__all__ = ["Shard", "full_state", "load_full_state", "placed", "shard", "whole_tensor"]


class Shard(Replica):
    """A stage whose parameters are shared out over the ranks; outside of a step they are DTensors.

    The reduce-scatter is complete when the backward pass ends: `wait` has nothing to wait for, and the next
    stage's forward pass follows it.
    """

    def __call__(
        self,
        flow: Flow,
        batch: Batch,
        pass_on: Callable[[Flow], object] | None = None,
        *,
        scale: float = 1.0,
    ) -> tuple[Flow, Mapping[str, Tensor]]:
        result = super().__call__(flow, batch, pass_on, scale=scale)
        if not torch.is_grad_enabled():
            self._reshard()  # no backward pass will; what was gathered would outlive the next step
        return result

    @contextmanager
    def whole(self) -> Iterator[None]:
        """While open, the network's own modules hold all of the parameters, to be read but not changed."""
        if sharded := _sharded(self._root):
            sharded.unshard()
        try:
            yield
        finally:
            self._reshard()

    def _reshard(self) -> None:
        if sharded := _sharded(self._root):
            sharded.reshard()


def shard(stage: LocalStage, mesh: DeviceMesh) -> Shard:
    """Share the parameters of a stage out over the ranks of a mesh; gradients become the mean over the ranks.

    Parameters and buffers take the values of the mesh's first rank. The parameters are replaced in the
    network's own modules: make the optimizer, and `local.parameters()`, after it. The network itself runs
    only within `Shard.whole`. A stage without trainable parameters passes through.

    Args:
        mesh: one dimension, or two for replicas of shards.

    Raises:
        NotYetSupported: a parameter that another module has sharded already.
    """
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    parameters = dict(stage.named_parameters())
    shared = [name for name, parameter in parameters.items() if isinstance(parameter, DTensor)]
    if shared:
        raise NotYetSupported(
            "a parameter of two modules cannot be sharded",
            got=", ".join(shared),
            remedy="cut elsewhere, or replicate the modules",
        )
    for dimension in range(mesh.ndim):
        broadcast_from_first([*parameters.values(), *stage.buffers()], mesh.get_group(dimension))
    for parameter in parameters.values():
        parameter.data = parameter.data.contiguous()  # fully_shard refuses channels-last weights
    root = _ShardRoot(stage)
    if any(parameter.requires_grad for parameter in parameters.values()):
        fully_shard(root, mesh=mesh, reshard_after_forward=False)
    return Shard(stage, root, root)


class _ShardRoot(StageRoot):
    """The stage below a root of its own: FSDP changes its root's class, and searches what it is given."""

    def __init__(self, stage: LocalStage):
        super().__init__()
        self.stage = stage
        self.owners = _Owners(stage)


class _Owners(nn.Module):
    """The network's modules outside of a stage that own parameters of it, as a class token belongs to a ViT.

    FSDP exchanges a parameter in all modules below its root. This module is there to pass it on: the code
    between the blocks reads the parameter from its owner.
    """

    def __init__(self, stage: LocalStage):
        super().__init__()
        own, inside = set(stage.parameters()), set(stage.modules())
        network = stage.part._root[0]
        self._places = {
            f"{index}": (module, name)
            for index, (module, name) in enumerate(
                (module, name)
                for module in network.modules()
                if module not in inside
                for name, parameter in module._parameters.items()
                if parameter in own
            )
        }
        for key, (module, name) in self._places.items():
            self._parameters[key] = module._parameters[name]

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in self._parameters:
            module, attribute = self._places[name]
            module._parameters[attribute] = value


def whole_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor, where this rank may hold a share of it; then every rank must ask, in one order."""
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole


def full_state(state: Any) -> Any:
    """A network's or an optimizer's state dict with plain tensors; every rank calls it and gets it."""
    return tree_map(lambda leaf: whole_tensor(leaf) if isinstance(leaf, Tensor) else leaf, state)


def load_full_state(target: nn.Module | torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load what `full_state` gave, into a network or an optimizer with sharded parameters or plain ones."""
    if isinstance(target, nn.Module):
        own = target.state_dict()
        target.load_state_dict({n: placed(v, own[n]) if n in own else v for n, v in state.items()})
        return
    parameters = [parameter for group in target.param_groups for parameter in group["params"]]
    moments = {
        index: {name: placed(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    target.load_state_dict({**state, "state": moments})


def placed(value: Any, like: Tensor) -> Any:
    """A copy, since an optimizer changes what it is given; this rank's share of it if `like` is sharded."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(value, Tensor):
        return value
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value.clone()
    # every rank has the values, nothing is sent; the copy is of the share, not of what it is a view of
    whole = value.to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None).clone()


def _sharded(root: nn.Module) -> FSDPModule | None:
    from torch.distributed.fsdp import FSDPModule

    return root if isinstance(root, FSDPModule) else None
