"""How probes are trained: everything that their estimates depend on, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from infopro.errors import BadConfiguration

__all__ = ["QUICK", "ProbeSettings"]


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """What the probes of an analysis are and how they are trained; stated beside every estimate.

    The defaults analyse a ResNet-32 on 10,000 CIFAR-10 images within ten minutes on two cores.

    Raises:
        BadConfiguration: a number outside its range.

    Example:
        >>> ProbeSettings(num_seeds=3).task_heads
        {'small': '0c1f', 'large': '2c2f'}
    """

    train_images: int | None = 10_000  # a class-balanced part of the training set; None: all
    test_images: int | None = 10_000  # likewise of the test set
    num_seeds: int = 1  # of every trained probe: initialisation, order, held-out part
    seed: int = 0  # the first one; it chooses the images, too
    map_size: int = 1024  # numbers per image, at most, that all probes but decoders read; above it, pooled
    memory: int = 4 * 2**30  # bytes for stored features; what is more goes to a temporary file

    linear_penalty: float = 0.01  # λ of mean cross-entropy + λ/2 ‖w‖², on standardised features

    task_heads: Mapping[str, str] = field(default_factory=lambda: {"small": "0c1f", "large": "2c2f"})
    nuisance_bins: int = 8  # at most; many-valued factors are cut at the training values' quantiles
    nuisance_width: int = 64  # hidden units per factor
    nuisance_side: int = 4  # side, at most, of the map that the nuisance network reads
    epochs: int = 12  # of the auxiliary networks, at least; each keeps its best epoch on the held-out part
    steps: int = 500  # of the auxiliary networks, at least: fewer images are seen more often
    batch_size: int = 128  # images
    learning_rate: float = 1e-2  # AdamW's first, falls to 0 as a cosine
    weight_decay: float = 0.3  # AdamW's
    linear_learning_rate: float = 5e-2  # of those that are linear: a convex problem, but of large weights
    linear_weight_decay: float = 1e-2
    hold_out: float = 0.1  # share of the training images on which the epoch is chosen

    decoder: str = "auto"  # a name of `infopro list decoders`
    decoder_epochs: int = 1  # at least; passes over the training images, each through the network again
    decoder_steps: int = 300  # at least: fewer images are decoded more often
    decoder_batch_size: int = 32  # images
    decoder_learning_rate: float = 3e-2  # Adam's first, falls to 0 as a cosine
    shown_images: int = 8  # the first test images, decoded from every block

    def __post_init__(self) -> None:
        least_one = ["num_seeds", "memory", "map_size", "nuisance_width", "nuisance_side"]
        least_one += ["epochs", "steps", "decoder_epochs", "decoder_steps", "train_images", "test_images"]
        for name in least_one:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadConfiguration(f"{name} of the probes is too small", got=value, allowed="1 or more")
        for name in ("batch_size", "decoder_batch_size", "nuisance_bins"):
            if getattr(self, name) < 2:
                got = getattr(self, name)
                raise BadConfiguration(f"{name} of the probes is too small", got=got, allowed="2 or more")
        if not 0 < self.hold_out < 1:
            raise BadConfiguration("hold_out of the probes", got=self.hold_out, allowed="between 0 and 1")

    def num_epochs(self, num_batches: int) -> int:
        """Of the auxiliary networks, where an epoch has this many batches.

        Example:
            >>> ProbeSettings(epochs=12, steps=500).num_epochs(10)
            50
        """
        return max(self.epochs, math.ceil(self.steps / num_batches))

    def num_decoder_epochs(self, num_batches: int) -> int:
        """Of the decoders, where an epoch has this many batches.

        Example:
            >>> ProbeSettings(decoder_epochs=1, decoder_steps=300).num_decoder_epochs(100)
            3
        """
        return max(self.decoder_epochs, math.ceil(self.decoder_steps / num_batches))


# For studies of many small networks: about a minute each on one core. The large network is trained a little
# short of what it finds in early blocks, so compare with other analyses of these settings only.
QUICK = ProbeSettings(
    train_images=4_000,
    test_images=2_000,
    epochs=8,
    steps=200,
    batch_size=256,
    learning_rate=2e-2,
    decoder="half",
    decoder_steps=120,
)
