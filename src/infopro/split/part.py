"""Runs one part of a recorded network with the caller's own modules and parameters."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from infopro.errors import NotSplittable
from infopro.split._values import decode
from infopro.split.program import PartProgram, Program, owned_parameters
from infopro.split.record import Node

__all__ = ["Flow", "Part", "start"]


@dataclass(frozen=True)
class Flow:
    """What travels from module to module: the live tensors of one batch, by value number."""

    program: Program
    values: dict[int, Tensor]
    batch_size: int
    device: torch.device

    def detached(self) -> Flow:
        """The same tensors, cut off from the graph that made them."""
        values = {number: tensor.detach() for number, tensor in self.values.items()}
        return Flow(self.program, values, self.batch_size, self.device)


def start(program: Program, inputs: tuple[Any, ...]) -> Flow:
    """The flow that the first part reads: the network's inputs."""
    tensors = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
    values = dict(zip(program.inputs, tensors, strict=True))
    first = next(tensor for tensor in tensors if tensor.dim() > 0)
    return Flow(program, values, first.shape[0], first.device)


class Part(nn.Module):
    """One local module: the caller's own blocks, called as the caller's forward calls them.

    Nothing is copied: the blocks and parameters registered here ARE the network's, so `state_dict` keys,
    identities, train/eval modes, hooks and dtypes of the network stay the caller's.
    """

    def __init__(self, model: nn.Module, program: PartProgram, index: int):
        super().__init__()
        self.index = index
        self._root = (model,)  # a tuple: not registered, the part owns its blocks only
        for name in program.blocks:
            self.add_module(name.replace(".", "/"), model.get_submodule(name))
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for name in sorted(owned_parameters(program) & parameters.keys()):
            self.register_parameter(name.replace(".", "/"), parameters[name])

    def forward(self, flow: Flow) -> Flow:
        """Compute this module on the (detached) flow that the previous one left."""
        program = flow.program.parts[self.index]
        values = {number: flow.values[number] for number in program.needs}
        for node in program.nodes:
            self._run(node, values, flow)
        kept = {number: values[number] for number in program.gives}
        # an optimizer that steps between two modules must not reach what has crossed the cut already
        kept |= {number: kept[number].clone() for number in program.parameter_views}
        return Flow(flow.program, kept, flow.batch_size, flow.device)

    def boundary(self, flow: Flow) -> Tensor:
        """The features that this part's local objective reads."""
        number = flow.program.parts[self.index].boundary
        assert number is not None, "the last part has no boundary"
        return flow.values[number]

    def result(self, flow: Flow) -> Any:
        """The network's own result, in the network's own structure; only the last part leaves all of it."""
        return decode(flow.program.output, flow.values, self._root[0], flow.batch_size, flow.device)

    def _run(self, node: Node, values: dict[int, Tensor], flow: Flow) -> None:
        root = self._root[0]
        args, kwargs = decode((node.args, node.kwargs), values, root, flow.batch_size, flow.device)
        call = root.get_submodule(node.target) if node.kind == "module" else node.target
        with torch.set_grad_enabled(torch.is_grad_enabled() and node.grad), _autocast(node, flow.device):
            result = call(*args, **kwargs)
        if node.kind == "guard":
            _check_guard(node, result)
            return
        for number, leaf in zip(node.outputs, tree_leaves(result), strict=True):
            if number is not None:
                values[number] = leaf


def _autocast(node: Node, device: torch.device) -> AbstractContextManager[Any]:
    if node.autocast is None:
        return nullcontext()
    enabled, dtype = node.autocast
    return torch.autocast(device.type, dtype=dtype, enabled=enabled)


def _check_guard(node: Node, seen: Any) -> None:
    if seen != node.outputs:
        raise NotSplittable(
            f"forward branches on the value of a tensor ({node.target.__name__}), and the branch changed",
            got=f"{seen} where {node.outputs} was recorded",
            remedy="call localize again with such a batch as the example input",
        )
