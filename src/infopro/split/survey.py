"""Lists the blocks of a network: the places where a user would expect that it can be cut."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from infopro.split.program import resized
from infopro.split.record import intercept_calls, undisturbed

__all__ = ["Survey", "survey"]

_SAMPLES = 7  # a batch size that is rarely another dimension's


@dataclass
class _Life:
    """When a tensor is made and last read, counted in operations."""

    made: int
    last_read: int
    differentiable: bool


@dataclass
class Survey:
    """One run of a network, seen from its module ends."""

    ends: dict[str, int] = field(
        default_factory=dict
    )  # name -> number of operations before the module returned
    calls: dict[str, int] = field(default_factory=dict)
    lives: dict[int, _Life] = field(default_factory=dict)
    batch_first: dict[str, bool] = field(
        default_factory=dict
    )  # name -> dimension 0 of all it returns is the batch

    def crossing(self, name: str) -> int:
        """How many differentiable tensors are alive when a module returns."""
        position = self.ends[name]
        return sum(t.differentiable and t.made < position <= t.last_read for t in self.lives.values())

    def called_once(self, name: str) -> bool:
        return self.calls.get(name, 0) == 1


class _Surveyor(TorchFunctionMode):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.survey = Survey()
        self.names = {id(module): name for name, module in reversed(list(model.named_modules()))}
        self.owned = {id(t) for t in itertools.chain(model.parameters(), model.buffers())}
        self.kept: list[Any] = []
        self.position = 0

    def read(self, tree: Any, position: int) -> None:
        for leaf in tree_leaves(tree):
            if id(leaf) in self.survey.lives:
                self.survey.lives[id(leaf)].last_read = position

    def make(self, tree: Any, position: int) -> None:
        for leaf in tree_leaves(tree):
            if isinstance(leaf, Tensor) and id(leaf) not in self.owned and id(leaf) not in self.survey.lives:
                self.kept.append(leaf)
                differentiable = leaf.requires_grad and leaf.is_floating_point()
                self.survey.lives[id(leaf)] = _Life(position, position - 1, differentiable)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if tensors or getattr(func, "__name__", "") != "__get__":  # reading a shape keeps no tensor alive
            self.position += 1
            self.read((args, kwargs), self.position)
            self.make(tensors, self.position)
        return result

    def call(self, original: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        result = original(module, *args, **kwargs)
        name = self.names.get(id(module))
        if name:
            self.survey.ends[name] = self.position + 1
            self.survey.calls[name] = self.survey.calls.get(name, 0) + 1
            tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            self.survey.batch_first[name] = all(t.dim() > 0 and t.shape[0] == _SAMPLES for t in tensors)
        return result


def survey(model: nn.Module, inputs: tuple[Any, ...]) -> Survey:
    """Run `model` once on a few samples and note, for each module, when it ends and what is alive then."""
    surveyor = _Surveyor(model)
    with undisturbed(model), intercept_calls(surveyor.call), surveyor:
        result = model(*resized(inputs, _SAMPLES))
    surveyor.read(result, surveyor.position + 1)
    return surveyor.survey
