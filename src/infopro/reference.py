"""The slow, obvious implementation: every engine is compared with it, and users may compare theirs.

It shares nothing with the recorded parts. The caller's unmodified network runs once; whatever is made before
a cut is handed out detached to whatever runs behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from infopro.local import LocalModel
from infopro.split.record import intercept_calls
from infopro.split.split_model import as_inputs
from infopro.types import Batch, StepOutput

__all__ = ["reference_backward"]


class _DetachOnRead(TorchFunctionMode):
    """Tags every tensor with the module that made it; a later module reads a detached twin."""

    def __init__(self) -> None:
        super().__init__()
        self.current = 0
        self.paused = False
        self.maker: dict[int, int] = {}
        self.twins: dict[tuple[int, int], Tensor] = {}
        self.kept: list[Tensor] = []  # ids stay unique only while the tensors live

    def read(self, tree: Any) -> Any:
        return tree_map(self._read_one, tree)

    def _read_one(self, value: Any) -> Any:
        if isinstance(value, slice):
            return slice(*self.read((value.start, value.stop, value.step)))
        if not isinstance(value, Tensor) or self.maker.get(id(value), self.current) == self.current:
            return value
        key = (id(value), self.current)
        if key not in self.twins:
            self.twins[key] = self._tag(value.detach())
        return self.twins[key]

    def _tag(self, tensor: Tensor) -> Tensor:
        self.maker.setdefault(id(tensor), self.current)
        self.kept.append(tensor)
        return tensor

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.paused:
            return func(*args, **(kwargs or {}))
        result = func(*self.read(args), **self.read(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and not isinstance(leaf, nn.Parameter):
                self._tag(leaf)
        return result


def reference_backward(local: LocalModel, images: Any, targets: Tensor) -> StepOutput:
    """The same step as `local.backward`, computed from the network's own forward.

    Example:
        >>> import infopro
        >>> infopro.reference_backward.__module__
        'infopro.reference'
    """
    inputs = as_inputs(images)
    batch = Batch(images=inputs[0], targets=targets)
    names = {id(local.model.get_submodule(cut)): index for index, cut in enumerate(local.split.cuts)}
    mode, losses = _DetachOnRead(), []

    def learn(index: int, features: Any) -> None:
        mode.paused = True
        stage_losses: Mapping[str, Tensor] = local.stages[index].objective(features, batch)
        if stage_losses["total"].requires_grad:
            with torch.autocast(stage_losses["total"].device.type, enabled=False):
                torch.autograd.backward(stage_losses["total"])
        losses.append({name: value.detach() for name, value in stage_losses.items()})
        mode.paused = False

    def call(original: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        result = original(module, *args, **kwargs)
        if not mode.paused and id(module) in names:
            learn(names[id(module)], _largest(mode.read(result)))
            mode.current += 1
        return result

    with intercept_calls(call), mode:
        output = mode.read(local.model(*inputs))
    learn(len(local.split.cuts), output)
    return StepOutput(tuple(losses), local.task.logits(output).detach())


def _largest(result: Any) -> Tensor:
    """The largest differentiable tensor that a block returns, the first of equals."""
    leaves = [t for t in tree_leaves(result) if isinstance(t, Tensor) and t.is_floating_point()]
    trained = [t for t in leaves if t.requires_grad]  # none behind frozen blocks
    return max(trained or leaves, key=lambda t: t[0].numel())
