"""Trains auxiliary networks on stored features: the estimates of I(h, y) and I(h, r).

Legend: N images, G things that one network predicts, B values of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infopro.analysis.auxiliary_nets import AuxiliaryProbe
from infopro.analysis.examples import Examples, View, view_of
from infopro.analysis.probe_settings import ProbeSettings
from infopro.data import counter_generator

__all__ = ["Tested", "fit_auxiliary"]

_CHUNK = 1000  # images tested at once


@dataclass(frozen=True)
class Tested:
    """Of each of a network's G targets, over all test images."""

    cross_entropy: tuple[float, ...]  # nats
    error: tuple[float, ...]  # %
    epoch: tuple[int, ...]  # 1-based, the one that was kept


def fit_auxiliary(
    probes: Sequence[AuxiliaryProbe],
    train: Examples,
    test: Examples,
    *,
    held_out: Tensor,
    settings: ProbeSettings,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[int, int], object] | None = None,
) -> list[Tested]:
    """Train all probes together, then test each at its best epoch.

    The sum of independent losses: no probe's gradient depends on another's. AdamW, cosine to 0. The best
    epoch of every single target is that of the lowest cross-entropy on the images held out of the training
    part; the test images decide nothing.

    Args:
        held_out: bool [N], of the training images.
        on_epoch: called with the number of epochs done, and of all.
    """
    kept, held = (mask.nonzero()[:, 0] for mask in (~held_out, held_out))
    fitting = _Fitting(probes, train, device)
    num_batches = math.ceil(len(kept) / settings.batch_size)
    epochs = settings.num_epochs(num_batches)
    fitting.start(settings, num_steps=epochs * num_batches)
    for epoch in range(epochs):
        order = kept[torch.randperm(len(kept), generator=counter_generator("probe order", seed, epoch))]
        for batch in torch.tensor_split(order, num_batches):  # of nearly equal sizes: none of a single image
            fitting.step(train, batch)
        for best, (losses, _) in zip(fitting.best, fitting.test(train, held), strict=True):
            best.offer(losses, epoch + 1)
        if on_epoch is not None:
            on_epoch(epoch + 1, epochs)
    for best in fitting.best:
        best.restore()
    found = zip(fitting.test(test, test.all), fitting.best, strict=True)
    return [
        Tested(*(tuple(values.tolist()) for values in (losses, errors, best.epoch)))
        for (losses, errors), best in found
    ]


class _Fitting:
    """All probes with their one optimizer."""

    def __init__(self, probes: Sequence[AuxiliaryProbe], train: Examples, device: torch.device):
        self.probes = probes
        self.views: dict[tuple[str, tuple[int, int]], View] = {}
        for probe in probes:
            if (probe.block, probe.size) not in self.views:
                self.views[probe.block, probe.size] = view_of(train.maps[probe.block], probe.size)
        self.device = device
        self.best = [_Best(probe.net.to(device)) for probe in probes]

    def start(self, settings: ProbeSettings, *, num_steps: int) -> None:
        groups: list[dict[str, Any]] = [
            {"lr": settings.linear_learning_rate, "weight_decay": settings.linear_weight_decay}
            if _is_linear(probe.net)
            else {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
            for probe in self.probes
        ]
        for group, probe in zip(groups, self.probes, strict=True):
            group["params"] = list(probe.net.parameters())
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, num_steps)

    def step(self, examples: Examples, chosen: Tensor) -> None:
        self._set_mode(training=True)
        self.optimizer.zero_grad()
        for probe, maps, targets in self._read(examples, chosen):
            # one by one: the activations of a single probe live at a time
            torch.autograd.backward(_losses(probe.net(maps), targets).mean(dim=0).sum())
        self.optimizer.step()
        self.schedule.step()

    @torch.no_grad()
    def test(self, examples: Examples, chosen: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Per probe the mean cross-entropy and the error in %, float64 [G] on the CPU."""
        self._set_mode(training=False)
        sums: list[tuple[Tensor, Tensor]] = [(torch.zeros(()), torch.zeros(()))] * len(self.probes)
        for chunk in torch.split(chosen, _CHUNK):
            for index, (probe, maps, targets) in enumerate(self._read(examples, chunk)):
                logits = probe.net(maps)
                loss = _losses(logits, targets).sum(dim=0, dtype=torch.float64).cpu()
                wrong = (logits.argmax(dim=2) != targets).sum(dim=0).double().cpu()
                sums[index] = (sums[index][0] + loss, sums[index][1] + wrong)
        return [(loss / len(chosen), 100 * wrong / len(chosen)) for loss, wrong in sums]

    def _set_mode(self, *, training: bool) -> None:
        for probe in self.probes:
            if probe.net.training != training:
                probe.net.train(training)

    def _read(self, examples: Examples, chosen: Tensor) -> Iterator[tuple[AuxiliaryProbe, Tensor, Tensor]]:
        """Each probe with its batch; what probes of one block that follow each other read is read once."""
        block, maps = "", torch.empty(0)
        targets = {name: numbers[chosen].to(self.device) for name, numbers in examples.targets.items()}
        for probe in self.probes:
            if probe.block != block:
                block, maps = probe.block, examples.maps[probe.block][chosen].to(self.device)
            yield probe, self.views[block, probe.size].of(maps), targets[probe.target]


class _Best:
    """The state of a network at the best epoch of each of its targets."""

    def __init__(self, net: nn.Module):
        self.net = net
        self.state: dict[str, Tensor] = {}
        self.loss = torch.tensor(math.inf, dtype=torch.float64)
        self.epoch = torch.tensor(0)

    def offer(self, losses: Tensor, epoch: int) -> None:
        better = losses < self.loss  # [G]
        self.loss = torch.where(better, losses, self.loss)
        self.epoch = torch.where(better, epoch, self.epoch)
        for name, value in self.net.state_dict().items():
            if name not in self.state or bool(better.all()):
                self.state[name] = value.clone()
            elif bool(better.any()):
                chosen = better.to(value.device)
                self.state[name][chosen] = value[chosen]

    def restore(self) -> None:
        self.net.load_state_dict(self.state)


def _is_linear(net: nn.Module) -> bool:
    return sum(parameter.dim() > 1 for parameter in net.parameters()) == 1


def _losses(logits_NGB: Tensor, targets_NG: Tensor) -> Tensor:
    """[N, G]."""
    losses = F.cross_entropy(logits_NGB.flatten(0, 1), targets_NG.flatten(), reduction="none")
    return losses.view(targets_NG.shape)
