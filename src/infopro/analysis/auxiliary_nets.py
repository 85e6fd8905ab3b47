"""The networks that predict the class, or the nuisance, from the features of a block.

Legend: N images, C channels, h w the map, G things that one network predicts, B values of each, D numbers of
a map, H hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infopro.analysis.seeding import seeded
from infopro.heads import Head, task_head

__all__ = ["AuxiliaryProbe", "nuisance_probe", "task_probe"]


@dataclass(frozen=True, eq=False)
class AuxiliaryProbe:
    """A network that predicts G targets from the standardised map of a block; targets share no weight."""

    block: str
    target: str  # of `Examples.targets`
    names: tuple[str, ...]  # G: the capacity, or the factors
    size: tuple[int, int]  # of the map that it reads: pooled first, standardised then
    net: nn.Module  # [N, C, *size] -> logits [N, G, B]; with G > 1 every tensor of its state begins with G


def task_probe(
    head: str, *, capacity: str, block: str, shape: tuple[int, ...], num_classes: int, seed: int
) -> AuxiliaryProbe:
    """A task head of this name, of `heads.list_task_heads()`, that predicts the class.

    A head that begins by pooling is given the pooled map, standardised: means over many places vary little,
    and its weights would have to be large.

    Args:
        capacity: what it is called in tables.
        shape: [C, h, w] of the stored map.
    """
    with seeded(f"task {head}", block, seed):
        net = task_head(head, feature_shape=shape, image_shape=shape, out_features=num_classes)
    size = _pooled_first(net) or (shape[1], shape[2])
    return AuxiliaryProbe(
        block, "task", (capacity,), size, nn.Sequential(net, nn.Unflatten(1, (1, num_classes)))
    )


def _pooled_first(head: Head) -> tuple[int, int] | None:
    first = head.layers[0]
    if not isinstance(first, nn.AdaptiveAvgPool2d):
        return None
    size = first.output_size
    height, width = size if isinstance(size, tuple) else (size, size)
    return int(height or 1), int(width or 1)


def nuisance_probe(
    num_values: Mapping[str, int],
    *,
    block: str,
    shape: tuple[int, ...],
    width: int,
    side: int,
    seed: int,
) -> AuxiliaryProbe:
    """A perceptron with one hidden layer for each factor, on the map averaged down to a small one.

    The small map keeps places apart, which global pooling would mix: most nuisance is one of place.

    Args:
        num_values: of each factor, by name.
        shape: [C, h, w] of the stored map.
        width: hidden units of each factor.
        side: of the small map, at most.
    """
    with seeded("nuisance", block, seed):
        size = min(shape[1], side), min(shape[2], side)
        net = _Perceptrons(shape[0] * math.prod(size), tuple(num_values.values()), width=width)
    return AuxiliaryProbe(block, "nuisance", tuple(num_values), size, net)


class _Perceptrons(nn.Module):
    """G perceptrons side by side, without a weight in common, as one matrix product."""

    def __init__(self, inputs: int, num_values: Sequence[int], *, width: int):
        super().__init__()
        members, most = len(num_values), max(num_values)
        self.hidden = nn.Parameter(_uniform(members, width, inputs, fan_in=inputs))
        self.hidden_bias = nn.Parameter(_uniform(members, width, fan_in=inputs))
        self.output = nn.Parameter(_uniform(members, most, width, fan_in=width))
        self.output_bias = nn.Parameter(_uniform(members, most, fan_in=width))
        self.absent: Tensor  # bool [G, B]: values that a factor does not have
        self.register_buffer("absent", torch.arange(most) >= torch.tensor(list(num_values))[:, None])

    def forward(self, maps: Tensor) -> Tensor:
        hidden = F.linear(maps.flatten(1), self.hidden.flatten(0, 1), self.hidden_bias.flatten()).relu()
        hidden_NGH = hidden.view(-1, *self.hidden_bias.shape)
        logits_NGB = torch.einsum("ngh,gbh->ngb", hidden_NGH, self.output) + self.output_bias
        return logits_NGB.masked_fill(self.absent, -math.inf)


def _uniform(*shape: int, fan_in: int) -> Tensor:
    """As `nn.Linear` draws its weights and biases."""
    return (2 * torch.rand(shape) - 1) / math.sqrt(fan_in)
