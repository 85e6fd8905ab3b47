"""Mutual information in closed form, or by integration in one dimension: what estimates are held against."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["binned_information", "channel_information", "class_information", "gaussian_information"]

_NODES = 4_001  # of numerical integration
_REACH = 8.0  # standard deviations beyond the outermost mean


def gaussian_information(correlation: float) -> float:
    """Of two jointly Gaussian numbers, -1/2 log(1 - correlation²) nats.

    Example:
        >>> round(gaussian_information(0.9), 4)
        0.8304
    """
    return -0.5 * math.log1p(-(correlation**2))


def binned_information(correlation: float, *, bins: int) -> float:
    """Of a Gaussian number and another one that is cut at its quantiles into `bins`, by integration.

    What is lost by binning shrinks as bins grow.

    Example:
        >>> [round(binned_information(0.9, bins=bins), 3) for bins in (2, 8, 100)]
        [0.381, 0.742, 0.826]
    """
    places, density = _grid(_REACH)
    edges = torch.special.ndtri(torch.arange(bins + 1, dtype=torch.float64) / bins)
    spread = math.sqrt(1 - correlation**2)
    below = torch.special.ndtr((edges - correlation * places[:, None]) / spread)
    return math.log(bins) - _integral(_entropies(below.diff(dim=1)) * density, places)


def class_information(distance: float, *, num_classes: int) -> float:
    """Of a class and a Gaussian number of variance 1 whose mean is `distance` x class, by integration.

    Example:
        >>> [round(class_information(distance, num_classes=2), 3) for distance in (0.0, 2.0, 20.0)]
        [0.0, 0.337, 0.693]
    """
    last = distance * (num_classes - 1)
    places, _ = _grid(_REACH + last / 2)
    means = distance * torch.arange(num_classes, dtype=torch.float64) - last / 2
    joint = torch.exp(-0.5 * (places[:, None] - means) ** 2) / math.sqrt(2 * math.pi) / num_classes
    density = joint.sum(dim=1)
    return math.log(num_classes) - _integral(_entropies(joint / density[:, None]) * density, places)


def channel_information(flip: float) -> float:
    """Of a fair bit and itself, flipped with probability `flip`: log 2 - H(flip) nats.

    Example:
        >>> round(channel_information(0.1), 4)
        0.3681
    """
    return math.log(2) + flip * math.log(flip) + (1 - flip) * math.log1p(-flip)


def _grid(reach: float) -> tuple[Tensor, Tensor]:
    """Places from -reach to reach, and the normal density there."""
    places = torch.linspace(-reach, reach, _NODES, dtype=torch.float64)
    return places, torch.exp(-0.5 * places**2) / math.sqrt(2 * math.pi)


def _entropies(shares: Tensor) -> Tensor:
    """Nats, of each row."""
    terms: Tensor = torch.special.xlogy(shares, shares)
    return -terms.sum(dim=1)


def _integral(values: Tensor, places: Tensor) -> float:
    return float(torch.trapezoid(values, places))
