"""A network of fake tensors: it has every shape and type, runs every operation, and holds no data."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._pytree import tree_map

from infopro.errors import NotReplayable
from infopro.splitting.program import batch_size_of, resized

__all__ = ["FakeNetwork", "RealNetwork", "data_dependence"]


class FakeNetwork:
    """A fake copy of a network, and the mode in which it runs; parameters stay shared where they were shared.

    Everything lies on a fake CPU, whatever the device of the network: a fake GPU cannot run a backward
    pass on
    a machine without one.
    """

    def __init__(self, model: nn.Module):
        # tensors that a network keeps as plain attributes stay real; they are small, and their values
        # may be read
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._memo: dict[int, Any] = {}
        self.model: nn.Module = self.copy(model)

    def copy(self, module: nn.Module) -> Any:
        """A fake copy of a module; what it shares with the network stays shared."""
        with self.mode:
            for tensor in itertools.chain(module.parameters(), module.buffers(), _attributes(module)):
                if id(tensor) not in self._memo:
                    self._memo[id(tensor)] = _fake(tensor)
        return copy.deepcopy(module, self._memo)

    @contextmanager
    def building_for(self, image: Tensor) -> Iterator[None]:
        """While open, new modules are fake, of the image's dtype: fake parameters cannot be cast later."""
        before = torch.get_default_dtype()
        torch.set_default_dtype(image.dtype if image.is_floating_point() else before)
        try:
            with self.mode:
                yield
        finally:
            torch.set_default_dtype(before)

    def inputs(self, tree: Any, batch_size: int | None = None) -> Any:
        """Fake twins of a network's inputs, at another batch size if one is given."""
        size = batch_size_of(tree)

        def one(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            shape = list(value.shape)
            if batch_size is not None and shape and shape[0] == size:
                shape[0] = batch_size
            return torch.empty(shape, dtype=value.dtype)

        with self.mode:
            return tree_map(one, tree)


class RealNetwork:
    """A network as it is, where a fake one is expected: for forwards that read the values of tensors."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.mode = nullcontext()

    def copy(self, module: nn.Module) -> Any:
        """The module itself."""
        return module

    def building_for(self, image: Tensor) -> AbstractContextManager[Any]:
        """While open, new modules are made on the image's device."""
        return image.device

    def inputs(self, tree: Any, batch_size: int | None = None) -> Any:
        """The inputs, at another batch size if one is given."""
        return tree if batch_size is None else resized(tree, batch_size)


@contextmanager
def data_dependence() -> Iterator[None]:
    """Turn the questions that fake tensors cannot answer into NotReplayable."""
    try:
        yield
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise NotReplayable(
            "forward looks at the values of tensors, which fake tensors do not have",
            got=str(error.func),
            remedy="give a real network and a real example input",
        ) from error


def _fake(tensor: Tensor) -> Tensor:
    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(fake, requires_grad=tensor.requires_grad)
    return fake


def _attributes(module: nn.Module) -> Iterator[Tensor]:
    """Tensors that are results of others (as weight_norm keeps them): these cannot be copied as they are."""
    for part in module.modules():
        yield from (value for value in vars(part).values() if isinstance(value, Tensor) and value.grad_fn)
