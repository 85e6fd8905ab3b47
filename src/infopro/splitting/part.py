"""One part of a network: the caller's own blocks and parameters, run as the caller's forward runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from infopro.splitting._values import decode
from infopro.splitting.program import Program
from infopro.splitting.replay import run_span

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

    def to(self, device: torch.device | str) -> Flow:
        """The same tensors on another device, where the next part runs."""
        values = {number: tensor.to(device) for number, tensor in self.values.items()}
        return Flow(self.program, values, self.batch_size, torch.device(device))


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

    Args:
        blocks: qualified names of the modules that this part calls.
        tensors: qualified names of the parameters and buffers that code between the blocks reads.
    """

    def __init__(self, model: nn.Module, index: int, *, blocks: Iterable[str], tensors: Iterable[str]):
        super().__init__()
        self.index = index
        self._root = (model,)  # a tuple: not registered, the part owns its blocks only
        for name in blocks:
            self.add_module(_alias(name), model.get_submodule(name))
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self._glue = tuple(sorted(tensors))
        for name in self._glue:
            if name in parameters:
                self.register_parameter(_alias(name), parameters[name])

    def forward(self, flow: Flow) -> Flow:
        """Compute this module on the (detached) flow that the previous one left."""
        program = flow.program.parts[self.index]
        values = {number: flow.values[number] for number in program.needs}
        for span in program.spans:
            run_span(span, values, self._root[0], flow.batch_size, flow.device)
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

    def tensors(self) -> Iterator[Tensor]:
        """All parameters and buffers that this part reads, also in the code between its blocks."""
        yield from self.parameters()
        yield from self.buffers()
        for name in self._glue:
            owner, _, attribute = name.rpartition(".")
            found = getattr(self._root[0].get_submodule(owner), attribute)
            if isinstance(found, Tensor):
                yield found

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Part:
        """Move to another device or dtype, with what the network's glue reads from its own attributes."""
        super()._apply(function, recurse)  # type: ignore[no-untyped-call]
        for name in self._glue:
            owner, _, attribute = name.rpartition(".")
            module = self._root[0].get_submodule(owner)
            if attribute in module._parameters:
                module._parameters[attribute] = self._parameters[_alias(name)]
            elif module._buffers.get(attribute) is not None and not self._contains(module):
                module._buffers[attribute] = function(module._buffers[attribute])  # type: ignore[arg-type]
        return self

    def _contains(self, module: nn.Module) -> bool:
        return any(module is own for block in self.children() for own in block.modules())


def _alias(name: str) -> str:
    return name.replace(".", "/")
