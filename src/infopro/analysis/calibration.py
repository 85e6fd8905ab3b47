"""The probes on features whose mutual information is known: do the estimates come out?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from infopro.analysis.decoding import BestConstant, Decoders
from infopro.analysis.estimates import Targets, auxiliary_estimates
from infopro.analysis.examples import Examples
from infopro.analysis.nuisance import factors_of
from infopro.analysis.probe_settings import ProbeSettings
from infopro.data import ImageTensors, counter_generator

__all__ = ["calibrate_classes", "calibrate_decoder", "calibrate_gaussian"]

_DIMENSIONS = 16  # of the features, of which one direction says something
_SIDE = 8  # pixels, of the decoder's images


def calibrate_gaussian(
    correlation: float, *, settings: ProbeSettings, num_train: int = 10_000, num_test: int = 10_000
) -> tuple[float, ...]:
    """Estimates of I(h, r), one per seed: r is correlated with one direction of Gaussian features.

    The truth is `binned_information` with the settings' number of bins; without bins it would be
    `gaussian_information`.
    """
    found = []
    for seed in _seeds(settings):
        draw = counter_generator("calibration/gaussian", seed)
        parts = []
        for number in (num_train, num_test):
            signal = torch.randn(number, generator=draw)
            noise = torch.randn(number, generator=draw)
            hidden = correlation * signal + math.sqrt(1 - correlation**2) * noise
            parts.append((_features(signal, draw), {"r": hidden}))
        found.append(_nuisance_estimate(parts, replace(settings, seed=seed, num_seeds=1)))
    return tuple(found)


def calibrate_classes(
    distance: float,
    *,
    num_classes: int,
    settings: ProbeSettings,
    num_train: int = 10_000,
    num_test: int = 10_000,
) -> Mapping[str, tuple[float, ...]]:
    """Estimates of I(h, y) by capacity, one per seed: the classes differ in one direction of the features.

    The truth is `class_information`; log-odds are linear in the features, so every capacity can reach it.
    """
    found: dict[str, tuple[float, ...]] = {}
    for seed in _seeds(settings):
        draw = counter_generator("calibration/classes", seed)
        parts = []
        for number in (num_train, num_test):
            labels = torch.arange(number) % num_classes
            signal = distance * labels + torch.randn(number, generator=draw)
            parts.append((_features(signal, draw), labels))
        train, test = (Examples({"h": maps}, {"task": labels[:, None]}) for maps, labels in parts)
        targets = Targets(num_classes=num_classes)
        information = _estimates(train, test, targets, replace(settings, seed=seed, num_seeds=1))["task"]
        found |= {name: (*found.get(name, ()), *nats) for name, nats in information.items()}
    return found


def calibrate_decoder(
    flip: float, *, settings: ProbeSettings, num_train: int = 10_000, num_test: int = 2_000
) -> tuple[float, ...]:
    """Estimates of I(h, x) per pixel, one per seed: h are the fair bits of an image, some of them flipped.

    The truth is `channel_information`.
    """
    found = []
    for seed in _seeds(settings):
        draw = counter_generator("calibration/decoder", seed)
        shape = (1, _SIDE, _SIDE)
        num_steps = num_train // settings.decoder_batch_size
        decoders = Decoders(
            {"h": shape},
            torch.full(shape, 0.5),
            settings=replace(settings, seed=seed, num_seeds=1),
            num_steps=num_steps,
            device=torch.device("cpu"),
        )
        constant = BestConstant()
        for _ in range(num_steps):
            images, features = _channel(settings.decoder_batch_size, flip, draw)
            constant.train(images)
            decoders.step({"h": features}, images)
        images, features = _channel(num_test, flip, draw)
        constant.test(images)
        decoders.test({"h": features}, images)
        found.append(constant.cross_entropy - decoders.cross_entropies("h")[0])
    return tuple(found)


def _seeds(settings: ProbeSettings) -> range:
    return range(settings.seed, settings.seed + settings.num_seeds)


def _features(signal: Tensor, draw: torch.Generator) -> Tensor:
    """[N, D, 1, 1]: the signal in one fixed direction, noise of variance 1 in all others."""
    noise = torch.randn(len(signal), _DIMENSIONS, generator=draw)
    direction = torch.full((_DIMENSIONS,), _DIMENSIONS**-0.5)
    across = noise - (noise @ direction)[:, None] * direction
    return (across + signal[:, None] * direction)[:, :, None, None]


def _nuisance_estimate(parts: list[tuple[Tensor, dict[str, Tensor]]], settings: ProbeSettings) -> float:
    train_images, test_images = (
        ImageTensors(
            torch.zeros(len(maps), 1, 1, 1, dtype=torch.uint8), torch.zeros(len(maps)).long(), None, r
        )
        for maps, r in parts
    )
    (factor,), _ = factors_of(train_images, test_images, bins=settings.nuisance_bins)
    train = Examples({"h": parts[0][0]}, {"nuisance": factor.train[:, None]})
    test = Examples({"h": parts[1][0]}, {"nuisance": factor.test[:, None]})
    targets = Targets(num_values={"r": factor.num_values})
    return _estimates(train, test, targets, settings)["nuisance"]["r"][0]


def _estimates(
    train: Examples, test: Examples, targets: Targets, settings: ProbeSettings
) -> dict[str, dict[str, tuple[float, ...]]]:
    """ "task" or "nuisance" -> name -> nats."""

    def held_out(seed: int) -> Tensor:
        generator = counter_generator("calibration/held out", seed)
        return torch.rand(len(train.all), generator=generator) < settings.hold_out

    found = auxiliary_estimates(
        train,
        test,
        targets,
        held_out=held_out,
        settings=settings,
        device=torch.device("cpu"),
        on_step=lambda what, done, total: None,
    )
    return {target: block.information for (_, target), block in found.items()}


def _channel(number: int, flip: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images of fair bits, and what a binary symmetric channel makes of them: [N, 1, H, W] each."""
    shape = (number, 1, _SIDE, _SIDE)
    images = (torch.rand(shape, generator=draw) < 0.5).float()
    flipped = (torch.rand(shape, generator=draw) < flip).float()
    return images, (images - flipped).abs()
