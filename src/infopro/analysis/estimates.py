"""From stored features to numbers: linear errors, and the nats that auxiliary networks find."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from infopro.analysis.auxiliary import fit_auxiliary
from infopro.analysis.auxiliary_nets import AuxiliaryProbe, nuisance_probe, task_probe
from infopro.analysis.examples import Examples
from infopro.analysis.information import entropy
from infopro.analysis.linear import linear_error
from infopro.analysis.network_pass import OnStep
from infopro.analysis.probe_settings import ProbeSettings

__all__ = ["Found", "Targets", "auxiliary_estimates", "linear_errors"]


@dataclass(frozen=True)
class Targets:
    """What auxiliary networks are to predict; empty: nothing of that kind."""

    num_classes: int = 0
    num_values: Mapping[str, int] = field(default_factory=dict)  # of each nuisance factor


@dataclass(frozen=True)
class Found:
    """What the probes of one block find, by capacity or factor: one number per seed."""

    information: dict[str, tuple[float, ...]] = field(default_factory=dict)  # nats
    error: dict[str, tuple[float, ...]] = field(default_factory=dict)  # %


def linear_errors(
    train: Examples, test: Examples, *, settings: ProbeSettings, on_step: OnStep
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Per block the linear classifier's test error in %, and a sentence for each that did not converge."""
    errors, notes = {}, []
    labels, test_labels = train.targets["task"][:, 0], test.targets["task"][:, 0]
    for number, block in enumerate(train.maps, start=1):
        errors[block], converged = linear_error(
            train.maps[block],
            labels,
            test.maps[block],
            test_labels,
            penalty=settings.linear_penalty,
        )
        if not converged:
            notes.append(f"the linear classifier of {block} did not converge: its error may be too high")
        on_step("linear classifiers", number, len(train.maps))
    return errors, tuple(notes)


def auxiliary_estimates(
    train: Examples,
    test: Examples,
    targets: Targets,
    *,
    held_out: Callable[[int], Tensor],
    settings: ProbeSettings,
    device: torch.device,
    on_step: OnStep,
) -> dict[tuple[str, str], Found]:
    """(block, "task" or "nuisance") -> H - test cross-entropy in nats, and test errors, per seed.

    H is the entropy of the target's frequencies among the test images. A lower bound of the mutual
    information, but for sampling: an estimate below 0, of a network that generalises worse than the
    frequencies do, is reported as it is.

    Args:
        held_out: seed -> bool [N] of the training images on which its probes choose their epoch.
    """
    entropies = {name: [entropy(column) for column in numbers.T] for name, numbers in test.targets.items()}
    found: dict[tuple[str, str], Found] = defaultdict(Found)
    for seed in range(settings.seed, settings.seed + settings.num_seeds):
        probes = [
            probe
            for block, maps in train.maps.items()
            for probe in _probes(block, tuple(maps.shape[1:]), targets, settings, seed)
        ]
        tested = fit_auxiliary(
            probes,
            train,
            test,
            held_out=held_out(seed),
            settings=settings,
            seed=seed,
            device=device,
            on_epoch=lambda done, total: on_step("auxiliary networks", done, total),
        )
        for probe, result in zip(probes, tested, strict=True):
            block = found[probe.block, probe.target]
            for index, name in enumerate(probe.names):
                nats = entropies[probe.target][index] - result.cross_entropy[index]
                block.information[name] = (*block.information.get(name, ()), nats)
                block.error[name] = (*block.error.get(name, ()), result.error[index])
    return dict(found)


def _probes(
    block: str, shape: tuple[int, ...], targets: Targets, settings: ProbeSettings, seed: int
) -> list[AuxiliaryProbe]:
    probes = []
    if targets.num_classes:
        probes += [
            task_probe(
                head,
                capacity=capacity,
                block=block,
                shape=shape,
                num_classes=targets.num_classes,
                seed=seed,
            )
            for capacity, head in settings.task_heads.items()
        ]
    if targets.num_values:
        width, side = settings.nuisance_width, settings.nuisance_side
        probes.append(
            nuisance_probe(targets.num_values, block=block, shape=shape, width=width, side=side, seed=seed)
        )
    return probes
