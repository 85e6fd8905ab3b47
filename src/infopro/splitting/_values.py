"""How a recorded call names its arguments: values, parameters and sizes instead of the tensors of one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["Affine", "Owned", "Slice", "StageDevice", "Value", "decode", "encode", "value_numbers"]


@dataclass(frozen=True)
class Value:
    """The n-th tensor that a recorded forward made or was given."""

    number: int


@dataclass(frozen=True)
class Owned:
    """A parameter or buffer of the network, by its qualified name."""

    name: str


@dataclass(frozen=True)
class Affine:
    """A size that follows the batch: slope * batch + offset."""

    slope: int
    offset: int


@dataclass(frozen=True)
class StageDevice:
    """The device on which the stage runs, whatever it was when recorded."""


class Slice(NamedTuple):
    """A slice as a tree node, so that tensors and sizes inside it are found."""

    start: Any
    stop: Any
    step: Any


def encode(tree: Any, leaf: Callable[[torch.Tensor], Any]) -> Any:
    """Replace every tensor by what `leaf` says, slices and sizes by plain trees, devices by a placeholder."""

    def one(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return leaf(value)
        if isinstance(value, slice):
            return Slice(*(encode(part, leaf) for part in (value.start, value.stop, value.step)))
        if isinstance(value, torch.Size):
            return tuple(value)
        return StageDevice() if isinstance(value, torch.device) else value

    return tree_map(one, tree)


def decode(
    tree: Any, values: dict[int, torch.Tensor], root: nn.Module, batch_size: int, device: torch.device
) -> Any:
    """The arguments of a recorded call for this batch: the inverse of `encode`."""

    decoder = _Decoder(values, root, batch_size, device)
    return tree_map(decoder, tree, is_leaf=lambda value: isinstance(value, Slice))


@dataclass(frozen=True)
class _Decoder:
    """An object: a closure that calls itself is a cycle, and keeps activations until it is collected."""

    values: dict[int, torch.Tensor]
    root: nn.Module
    batch_size: int
    device: torch.device

    def __call__(self, value: Any) -> Any:
        if isinstance(value, Value):
            return self.values[value.number]
        if isinstance(value, Owned):
            owner, _, attribute = value.name.rpartition(".")
            return getattr(self.root.get_submodule(owner), attribute)
        if isinstance(value, Affine):
            return value.slope * self.batch_size + value.offset
        if isinstance(value, Slice):
            return slice(*(self(part) for part in value))
        return self.device if isinstance(value, StageDevice) else value


def value_numbers(tree: Any) -> set[int]:
    """The numbers of all values that a recorded tree mentions."""
    return {leaf.number for leaf in tree_leaves(tree) if isinstance(leaf, Value)}
