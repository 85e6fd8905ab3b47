"""The network's own forward, run as it is: what was made before a cut is read detached behind it.

Nothing is recorded, so any Python in forward works; all modules must be in one process. It serves
networks whose
forward cannot be replayed, and is the independent implementation with which the recorded parts are compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from infopro.errors import NotSplittable
from infopro.splitting.program import batch_size_of
from infopro.splitting.record import ancestors, inside_checkpoint, intercept_calls, random_state, writes

__all__ = ["Observation", "largest", "run_live"]


@dataclass
class Observation:
    """What one live run did, stage by stage."""

    blocks: dict[str, int] = field(default_factory=dict)  # outermost block -> stage that called it first
    tensors: list[set[str]] = field(default_factory=list)  # per stage, parameters and buffers that glue read
    boundary_shapes: list[tuple[int, ...]] = field(default_factory=list)
    reads: list[tuple[int, int, int]] = field(
        default_factory=list
    )  # tensor, stage that made it, that read it
    boundaries: list[int] = field(default_factory=list)  # per cut, which tensor the local objective reads
    cut_calls: dict[str, int] = field(default_factory=dict)

    def carried(self, cut: int) -> int:
        """How many tensors cross a cut besides the one that the local objective reads."""
        crossing = {tensor for tensor, made, read in self.reads if made <= cut < read}
        return len(crossing - {self.boundaries[cut]})


def run_live(
    model: nn.Module,
    inputs: tuple[Any, ...],
    *,
    cuts: Sequence[str],
    learn: Callable[[int, Any], object],
    observe: Observation | None = None,
) -> Any:
    """Run `model(*inputs)`; behind each cut, and at the end, `learn(stage, features)` may differentiate.

    `features` is the largest differentiable tensor that the cut returns; for the last stage the network's
    result, which is returned, too.
    """
    mode = _DetachOnRead(model, cuts, observe or Observation())
    batch_size = batch_size_of(inputs)
    for leaf in tree_leaves(inputs):
        if isinstance(leaf, Tensor):
            mode.tag(leaf)
    indices = {id(model.get_submodule(cut)): index for index, cut in enumerate(cuts)}

    def call(original: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if mode.paused:
            return original(module, *args, **kwargs)
        if id(module) in indices and inside_checkpoint():
            raise NotSplittable(
                "a block that ends a module runs inside torch.utils.checkpoint: it cannot run live",
                remedy="switch checkpointing around blocks off, as set_grad_checkpointing(False) does",
            )
        result = mode.call(original, module, args, kwargs)
        if indices.get(id(module)) == mode.current:
            mode.finish_stage(largest(mode.read(result), batch_size), learn)
        return result

    with intercept_calls(call), mode:
        output = mode.read(model(*inputs))
    if mode.current < len(cuts):
        raise NotSplittable(
            f"forward did not call the block {cuts[mode.current]!r}, which ends module {mode.current + 1}",
            remedy="cut behind a block that every forward calls, in order; LayerDrop may skip any layer",
        )
    learn(mode.current, output)
    return output


def largest(result: Any, batch_size: int) -> Tensor:
    """The largest differentiable tensor, batch first, that a block returns; the first of equals."""
    leaves = [
        t for t in tree_leaves(result) if isinstance(t, Tensor) and t.is_floating_point() and t.dim() > 1
    ]
    leaves = [t for t in leaves if t.shape[0] == batch_size]
    trained = [t for t in leaves if t.requires_grad]  # none behind frozen blocks
    if not leaves:
        raise NotSplittable(
            "a cut returns no tensor whose first dimension is the batch",
            remedy="cut behind another block, or use a batch-first network",
        )
    return max(trained or leaves, key=lambda t: t.numel())


class _DetachOnRead(TorchFunctionMode):
    """Tags every tensor with the stage that made it; a later stage reads a detached twin."""

    def __init__(self, model: nn.Module, cuts: Sequence[str], seen: Observation):
        super().__init__()
        self.current = 0
        self.paused = False
        self.inside_block = False
        self.seen = seen
        seen.tensors.append(set())
        self.opened = ancestors(cuts)
        self.cuts = set(cuts)
        self.names = {id(module): name for name, module in reversed(list(model.named_modules()))}
        owned = itertools.chain(model.named_parameters(), model.named_buffers())
        self.owned = {id(tensor): name for name, tensor in owned}
        # weak: a tag must not keep an activation alive
        self.maker: Any = WeakIdKeyDictionary()
        self.twins: Any = WeakIdKeyDictionary()  # tensor -> (stage that reads, what it reads)
        self.counter = itertools.count()
        self.serials: Any = WeakIdKeyDictionary()  # numbers for the observation
        self.recipes: Any = WeakIdKeyDictionary()  # tensor of parameters alone -> how to compute it again

    def tag(self, tensor: Tensor) -> None:
        if id(tensor) not in self.owned and tensor not in self.maker:
            self.maker[tensor] = self.current

    def read(self, tree: Any) -> Any:
        return tree_map(self._read_one, tree)

    def finish_stage(self, features: Tensor, learn: Callable[[int, Any], object]) -> None:
        self.seen.boundary_shapes.append(tuple(features.shape[1:]))
        self.seen.boundaries.append(self._serial(features))
        self.paused = True
        learn(self.current, features)
        self.paused = False
        self.current += 1
        self.seen.tensors.append(set())

    def call(self, original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        name = self.names.get(id(module))
        if name in self.cuts:
            self.seen.cut_calls[name] = self.seen.cut_calls.get(name, 0) + 1
        if self.inside_block or name is None or name in self.opened:
            return original(module, *args, **kwargs)
        self.seen.blocks.setdefault(name, self.current)
        self.inside_block = True
        try:
            return original(module, *args, **kwargs)
        finally:
            self.inside_block = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        if self.inside_block:
            return self._tagged(func(*self.read(args), **self.read(kwargs)))
        return self._glue(func, args, kwargs)

    def _glue(self, func: Any, args: Any, kwargs: Any) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self.seen.tensors[-1] |= {self.owned[id(t)] for t in tensors if id(t) in self.owned}
        if writes(func) and tensors:
            self.recipes.pop(tensors[0], None)
        pure = not writes(func) and all(id(t) in self.owned or t in self.recipes for t in tensors)
        before = random_state() if pure else None
        result = self._tagged(func(*self.read(args), **self.read(kwargs)))
        if pure and before == random_state():
            for index, leaf in enumerate(tree_leaves(result)):
                if isinstance(leaf, Tensor) and id(leaf) not in self.owned:
                    self.recipes[leaf] = (func, args, kwargs, index)
        return result

    def _tagged(self, result: Any) -> Any:
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.tag(leaf)
        return result

    def _read_one(self, value: Any) -> Any:
        if isinstance(value, slice):
            return slice(*self.read((value.start, value.stop, value.step)))
        if not isinstance(value, Tensor) or self.maker.get(value, self.current) == self.current:
            return value
        stage, twin = self.twins.get(value, (None, None))
        if stage != self.current:
            twin = self._again(value) if value.requires_grad and value in self.recipes else self._twin(value)
            self.twins[value] = (self.current, twin)
        return twin

    def _twin(self, value: Tensor) -> Tensor:
        self.seen.reads.append((self._serial(value), self.maker[value], self.current))
        twin = value.detach()
        self.tag(twin)
        return twin

    def _serial(self, value: Tensor) -> int:
        return int(self.serials.setdefault(value, next(self.counter)))

    def _again(self, value: Tensor) -> Tensor:
        """A value of parameters alone, computed anew: so this stage trains them, too."""
        func, args, kwargs, index = self.recipes[value]
        again: Tensor = tree_leaves(func(*self.read(args), **self.read(kwargs)))[index]
        self.tag(again)
        return again
