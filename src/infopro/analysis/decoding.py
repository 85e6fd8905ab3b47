"""Decoders that are trained to draw the image from the features of a block: the estimate of I(h, x)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from infopro.analysis.pooling import layout_of
from infopro.analysis.probe_settings import ProbeSettings
from infopro.analysis.seeding import seeded
from infopro.analysis.stored_features import Shapes
from infopro.heads import decoder
from infopro.objectives import reconstruction_loss_of_logits

__all__ = ["BestConstant", "Decoders", "ImageProbe"]

_VECTOR_CHANNELS, _VECTOR_SIDE = 16, 8  # of the map into which a vector is laid out


class ImageProbe(nn.Module):
    """A decoder plus, in logits, a share of the best constant image: 1 at first, learned per channel.

    So features that say nothing cost nothing. Vectors, which have no place for a decoder to start from, are
    first laid out by a linear layer as 16 maps of 8 x 8.

    Shapes:
        features [N, *feature_shape] -> logits of the image, [N, *image_shape].
    """

    def __init__(self, name: str, *, feature_shape: Sequence[int], constant_image: Tensor):
        super().__init__()
        image_shape = tuple(constant_image.shape)
        layout = layout_of(feature_shape, image_shape)
        self.arrange: nn.Module = nn.Identity()
        if layout.size == (1, 1):
            feature_shape = (_VECTOR_CHANNELS, _VECTOR_SIDE, _VECTOR_SIDE)
            lines = nn.Linear(layout.channels, math.prod(feature_shape))
            self.arrange = nn.Sequential(nn.Flatten(), lines, nn.Unflatten(1, feature_shape))
        self.decoder = decoder(name, feature_shape=feature_shape, image_shape=image_shape)
        self.share = nn.Parameter(torch.ones(image_shape[0], 1, 1))
        self.constant: Tensor
        self.register_buffer("constant", torch.logit(constant_image).float())

    def forward(self, features: Tensor) -> Tensor:
        return self.decoder.logits(self.arrange(features)) + self.share * self.constant


class Decoders:
    """One decoder per block and seed; a step trains all of them, each on its own loss.

    Their parameters are disjoint and Adam works number by number: none depends on which others there are.

    Args:
        constant_image: [C, H, W], between 0 and 1: what they draw before they have learned anything.
        num_steps: for which the learning rate falls to 0.
    """

    def __init__(
        self,
        shapes: Shapes,
        constant_image: Tensor,
        *,
        settings: ProbeSettings,
        num_steps: int,
        device: torch.device,
    ):
        self.probes: dict[tuple[str, int], ImageProbe] = {}
        for block, shape in shapes.items():
            for seed in range(settings.seed, settings.seed + settings.num_seeds):
                with seeded("decoder", block, seed):
                    probe = ImageProbe(settings.decoder, feature_shape=shape, constant_image=constant_image)
                self.probes[block, seed] = probe.to(device)
        parameters = [p for probe in self.probes.values() for p in probe.parameters()]
        self._optimizer = torch.optim.Adam(parameters, lr=settings.decoder_learning_rate, fused=True)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, max(num_steps, 1))
        self._sums = dict.fromkeys(self.probes, 0.0)
        self._num_tested = 0

    def step(self, features: Mapping[str, Tensor], unit_images: Tensor) -> None:
        """One step of training on the images [N, C, H, W] in [0, 1]."""
        self._optimizer.zero_grad()
        for (block, _), probe in self.probes.items():
            # one by one: the activations of a single decoder live at a time
            if not probe.training:
                probe.train()
            loss = reconstruction_loss_of_logits(probe(features[block]), unit_images)
            torch.autograd.backward(loss)
        self._optimizer.step()
        self._schedule.step()

    @torch.no_grad()
    def test(self, features: Mapping[str, Tensor], unit_images: Tensor) -> None:
        """Take these images into the test cross-entropy."""
        for (block, seed), probe in self.probes.items():
            loss = reconstruction_loss_of_logits(probe.eval()(features[block]), unit_images)
            self._sums[block, seed] += loss.item() * len(unit_images)
        self._num_tested += len(unit_images)

    @torch.no_grad()
    def draw(self, features: Mapping[str, Tensor], *, seed: int) -> dict[str, Tensor]:
        """block -> the images of one seed's decoders, [N, C, H, W] in [0, 1]."""
        chosen = {block: probe.eval() for (block, s), probe in self.probes.items() if s == seed}
        return {block: torch.sigmoid(probe(features[block])) for block, probe in chosen.items()}

    def cross_entropies(self, block: str) -> tuple[float, ...]:
        """Per seed, nats per pixel and channel, mean over all tested images."""
        return tuple(total / self._num_tested for (b, _), total in self._sums.items() if b == block)


class BestConstant:
    """The best constant image of the training images, tested on the test images.

    Per pixel and channel the mean of n training images, smoothed as Krichevsky and Trofimov do,
    (sum + 1/2) / (n + 1): a pixel that is 0 in all of them may yet differ in a test image.

    Example:
        >>> constant = BestConstant()
        >>> constant.train(torch.tensor([[[[0.0, 1.0]]]] * 99))
        >>> constant.test(torch.tensor([[[[0.0, 1.0]]]]))
        >>> round(constant.cross_entropy, 3)
        0.005
    """

    def __init__(self) -> None:
        self._trained, self._tested = _Sum(), _Sum()

    def train(self, unit_images: Tensor) -> None:
        """Take training images [N, C, H, W] in [0, 1] into the mean."""
        self._trained.add(unit_images)

    def test(self, unit_images: Tensor) -> None:
        """Take test images into the cross-entropy."""
        self._tested.add(unit_images)

    @property
    def image(self) -> Tensor:
        """float64 [C, H, W], between 0 and 1."""
        return (self._trained.total + 0.5) / (self._trained.number + 1)

    @property
    def cross_entropy(self) -> float:
        """Nats per pixel and channel."""
        guess, truth = self.image, self._tested.total / self._tested.number
        return float(-(truth * guess.log() + (1 - truth) * (1 - guess).log()).mean())


class _Sum:
    def __init__(self) -> None:
        self.total: Tensor = torch.zeros((), dtype=torch.float64)
        self.number = 0

    def add(self, images: Tensor) -> None:
        self.total = self.total + images.sum(dim=0, dtype=torch.float64).cpu()
        self.number += len(images)
