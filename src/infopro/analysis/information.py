"""What probes' cross-entropies say in nats: plain functions of what was measured."""

from __future__ import annotations

import torch
from torch import Tensor

from infopro.analysis._types import BlockInformation, References

__all__ = ["entropy", "input_information", "input_scores"]


def entropy(values: Tensor) -> float:
    """Of the frequencies of whole numbers, int64 [N], in nats.

    Example:
        >>> round(entropy(torch.tensor([0, 0, 1, 1])), 4)
        0.6931
    """
    counts = torch.unique(values, return_counts=True)[1].double()
    shares = counts / counts.sum()
    return float(-(shares * shares.log()).sum())


def input_scores(block: BlockInformation) -> tuple[float, ...]:
    """I(h, x) up to a constant, as InfoPro's figures have it: 1 - mean cross-entropy, per probe seed."""
    return tuple(1.0 - value for value in block.input_cross_entropy)


def input_information(block: BlockInformation, references: References) -> tuple[float, ...]:
    """How many nats of an image its decoder gains on the best constant image, per probe seed.

    (constant - cross-entropy) x pixels: a lower bound of the information on each single pixel, summed. What
    pixels share is counted in each; as H(x) it is the same for all features of the same images. 0 for
    features that say nothing and, as every estimate here, below by what the decoder fails to learn.

    Example:
        >>> references = References(pixels=3072, label_entropy=2.3, constant_cross_entropy=0.68)
        >>> block = BlockInformation(
        ...     block="stem", depth=1, module=1, feature_shape=(16, 32, 32), input_cross_entropy=(0.58,)
        ... )
        >>> [round(nats, 1) for nats in input_information(block, references)]
        [307.2]
    """
    constant = references.constant_cross_entropy
    return tuple((constant - value) * references.pixels for value in block.input_cross_entropy)
