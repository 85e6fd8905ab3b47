"""Counter-based randomness: every choice has its own seed and depends on nothing that was drawn before."""

from __future__ import annotations

import hashlib

import torch

__all__ = ["counter_generator"]


def counter_generator(purpose: str, *counters: int) -> torch.Generator:
    """A fresh generator on the CPU for one purpose and one place, such as ("order", seed, epoch).

    On the CPU whatever the training device is: the same images are cropped in the same way on every device.

    Example:
        >>> first, again = counter_generator("order", 0, 1), counter_generator("order", 0, 1)
        >>> first.initial_seed() == again.initial_seed()
        True
    """
    place = "/".join([purpose, *map(str, counters)])
    number = int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "little")
    return torch.Generator().manual_seed(number >> 1)  # 63 bits: manual_seed takes a signed number
