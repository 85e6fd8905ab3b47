"""Watches one run of a network: when each module starts and ends, and which tensors are read when."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from infopro.splitting.program import resized
from infopro.splitting.record import intercept_calls, undisturbed

__all__ = ["Survey", "survey"]

_SAMPLES = 7  # a batch size that is rarely another dimension's


@dataclass
class _Life:
    """When a tensor is made and read, counted in operations."""

    made: int
    differentiable: bool
    reads: list[int] = field(default_factory=list)

    def read_within(self, after: int, until: int) -> bool:
        return any(after <= position <= until for position in self.reads)


@dataclass
class _Call:
    """The last call of a module."""

    count: int = 0
    end: int = 0  # number of operations before it returned
    outputs: frozenset[int] = frozenset()
    learnable: bool = False  # returns a tensor, batch first, that the main result is differentiated through


@dataclass
class Survey:
    """One run of a network, seen from its module ends."""

    calls: dict[str, _Call] = field(default_factory=dict)
    lives: dict[int, _Life] = field(default_factory=dict)
    length: int = 0

    def end(self, name: str) -> int:
        return self.calls[name].end

    def crossing(self, name: str) -> int:
        """How many differentiable tensors are alive when a module returns."""
        return len(self._alive(self.end(name), self.length))

    def others_alive(self, name: str, inside: str) -> int:
        """How many tensors besides its result the enclosing module still reads when a module has returned.

        None behind an element of a chain; one behind the first half of a residual block.
        """
        until = self.end(inside) if inside else self.length
        return len(self._alive(self.end(name), until - 1) - self.calls[name].outputs)

    def called_once(self, name: str) -> bool:
        return name in self.calls and self.calls[name].count == 1

    def cuttable(self, name: str) -> bool:
        """Whether a cut may lie behind a module: one call, a batch first, on the way to the main result.

        So no cut falls into auxiliary heads, on which nothing else depends; in eval mode they may not run.
        """
        call = self.calls[name]
        return call.count == 1 and call.learnable

    def _alive(self, end: int, until: int) -> set[int]:
        return {
            identity
            for identity, life in self.lives.items()
            if life.differentiable and life.made < end and life.read_within(end, until)
        }


class _Surveyor(TorchFunctionMode):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.survey = Survey()
        self.names = {id(module): name for name, module in reversed(list(model.named_modules()))}
        self.owned = {id(t) for t in itertools.chain(model.parameters(), model.buffers())}
        self.kept: list[Any] = []  # ids stay unique only while the tensors live
        self.nodes: dict[str, set[Any]] = {}  # where autograd's graph leaves each module
        self.position = 0

    def read(self, tree: Any, position: int) -> None:
        for leaf in tree_leaves(tree):
            if id(leaf) in self.survey.lives:
                self.survey.lives[id(leaf)].reads.append(position)

    def make(self, tensors: list[Tensor], position: int) -> None:
        for leaf in tensors:
            if id(leaf) not in self.owned and id(leaf) not in self.survey.lives:
                self.kept.append(leaf)
                self.survey.lives[id(leaf)] = _Life(position, leaf.requires_grad and leaf.is_floating_point())

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = list(_tensors(result))
        if tensors or getattr(func, "__name__", "") != "__get__":  # reading a shape keeps no tensor alive
            self.position += 1
            self.read((args, kwargs), self.position)
            self.make(tensors, self.position)
        return result

    def call(self, original: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        result = original(module, *args, **kwargs)
        name = self.names.get(id(module))
        if name:
            call = self.survey.calls.setdefault(name, _Call())
            tensors = list(_tensors(result))
            self.kept.extend(tensors)
            call.count += 1
            call.end = self.position + 1
            call.outputs = frozenset(id(t) for t in tensors)
            batches = (t for t in tensors if t.requires_grad and t.dim() > 1 and t.shape[0] == _SAMPLES)
            self.nodes[name] = {t.grad_fn for t in batches}
        return result


def survey(model: nn.Module, inputs: tuple[Any, ...]) -> Survey:
    """Run `model` once on a few samples and note, for each module, when it ends and what is alive then."""
    surveyor = _Surveyor(model)
    with undisturbed(model), intercept_calls(surveyor.call), surveyor:
        result = model(*resized(inputs, _SAMPLES))
    surveyor.read(result, surveyor.position + 1)
    surveyor.survey.length = surveyor.position + 1
    main: set[Any] = max((_graph(leaf) for leaf in _tensors(result)), key=len, default=set())
    for name, call in surveyor.survey.calls.items():
        call.learnable = bool(surveyor.nodes[name] & main)
    return surveyor.survey


def _graph(tensor: Tensor) -> set[Any]:
    """All of autograd's nodes that a tensor comes from."""
    found: set[Any] = set()
    waiting = [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [following for following, _ in node.next_functions]
    return found


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
