"""Initial weights that depend on nothing but a purpose, a name and a seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from infopro.data import counter_generator

__all__ = ["seeded"]


@contextmanager
def seeded(purpose: str, name: str, seed: int) -> Iterator[None]:
    """While open, the CPU's random stream is that of one probe; afterwards it goes on where it was.

    Example:
        >>> with seeded("decoder", "layer1.0", 0):
        ...     first = torch.rand(1)
        >>> with seeded("decoder", "layer1.0", 0):
        ...     torch.equal(torch.rand(1), first)
        True
    """
    before = torch.random.get_rng_state()
    stream = counter_generator(f"probe/{purpose}/{name}", seed)
    torch.default_generator.manual_seed(stream.initial_seed())  # not the devices' streams
    try:
        yield
    finally:
        torch.random.set_rng_state(before)
