"""A moving average of the network's weights: kept beside training, put in their place for a test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from infopro.engines import Engine
from infopro.engines.shards import placed
from infopro.errors import BadConfiguration, BadInput

__all__ = ["WeightAverages", "in_place", "settle"]


class WeightAverages:
    """The exponential moving average of a network's weights over training steps; `train` keeps it up.

    The first step is copied. After it, with n steps in the average, it moves towards the weights by 1 - d,
    where d = min(decay, (1 + n) / (10 + n)): so the average is over about the last 9th of a short run, and
    forgets the first weights within it. Statistics of BatchNorm (buffers of floating point) are averaged like
    the weights, since they belong to them; what is no floating-point number, and a buffer that
    `model.state_dict()` leaves out, is the network's own.

    It deviates from `torch.optim.swa_utils.AveragedModel`, whose `get_ema_multi_avg_fn` it calls, in that
    warm-up, and in that the average is a set of tensors and no second network: it is tested in the network
    itself, and so by any engine. timm's `ModelEmaV3` averages buffers alike; its warm-up is another.

    Args:
        model: `local.model`. In a process of a pipeline, what it holds of it; made when the engine is made,
            as the optimizer is.
        decay: above 0 and below 1; 0.999 is an average over about the last 1000 steps.

    Raises:
        BadConfiguration: a decay out of its range.
        BadInput: weights of float16 or bfloat16, which small changes would be rounded away from.

    Example:
        >>> network = nn.Linear(1, 1, bias=False)
        >>> averages = WeightAverages(network, decay=0.5)
        >>> for value in (1.0, 2.0, 3.0):
        ...     _ = network.weight.data.fill_(value)
        ...     averages.update()
        >>> round(averages.state_dict()["weight"].item(), 3), network.weight.item()
        (2.705, 3.0)
        >>> with averages.applied():
        ...     round(network.weight.item(), 3)
        2.705
    """

    def __init__(self, model: nn.Module, *, decay: float):
        if not 0 < decay < 1:
            raise BadConfiguration(
                "the decay of averaged weights is out of range", got=decay, allowed="above 0 and below 1"
            )
        self.model = model
        self.decay = decay
        self.steps = 0  # in the average
        self._applied = False
        self._places = dict(_places(model))
        self._averages = self._like_the_weights()
        self._held = {name: tensor for name, tensor in self._averages.items() if not tensor.is_meta}

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by the names of `model.state_dict()`, which its `load_state_dict` takes; no copies.

        Of what is in this process. Before the first step: what the weights were when this was made.
        """
        self._require_own_weights()
        return dict(self._held)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as a step has left them."""
        self._require_own_weights()
        pairs = self._pairs()
        averaged = [pair for pair in pairs if self.steps and _is_averaged(pair[0])]
        if averaged:
            decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
            averages, weights = map(list, zip(*averaged, strict=True))
            move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            move(averages, weights, self.steps)
        for average, weight in pairs:
            if not (self.steps and _is_averaged(average)):
                average.copy_(weight)
        self.steps += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """While open, the network holds the averages; its own weights then come back, bit for bit.

        The two are exchanged tensor by tensor, so that no third set is needed. What changes meanwhile has
        changed the averages.
        """
        self._require_own_weights()
        self._exchange()
        self._applied = True
        try:
            yield
        finally:
            self._exchange()
            self._applied = False

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], *, steps: int) -> None:
        """Restore what `state_dict` and `steps` were; the layout in memory stays, as bits depend on it."""
        self._require_own_weights()
        for name, average in self._held.items():
            average.copy_(placed(tensors[name], average))
        self.steps = steps

    @torch.no_grad()
    def _exchange(self) -> None:
        for average, weight in self._pairs():
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    @torch.no_grad()
    def _like_the_weights(self) -> dict[str, Tensor]:
        made: dict[int, Tensor] = {}  # a weight that has two names has one average
        found = {}
        for name, (tensors, key) in self._places.items():
            weight = tensors[key]
            if weight.dtype in (torch.float16, torch.bfloat16):
                raise BadInput(
                    "weights of low precision cannot be averaged: small changes would be rounded away",
                    got=f"{name} of {weight.dtype}",
                    allowed="float32, float64",
                    remedy="keep the weights in float32 and train with precision=torch.bfloat16",
                )
            found[name] = made.setdefault(id(weight), weight.detach().clone())
        return found

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Each average with its weight, of which a rank may hold a share; a weight's place stays, not it."""
        found = {}
        for name, average in self._held.items():
            tensors, key = self._places[name]
            found[id(average)] = _own(average), _own(tensors[key].detach())
        return list(found.values())

    def _require_own_weights(self) -> None:
        if self._applied:
            raise BadInput(
                "the averaged weights are in the network's place",
                remedy="leave `with averages.applied():` first",
            )


def in_place(averages: WeightAverages | None) -> AbstractContextManager[None]:
    """`applied`, where weights are averaged; else nothing."""
    return nullcontext() if averages is None else averages.applied()


def settle(engine: Engine, averages: WeightAverages | None) -> None:
    """`Engine.settle`, of the averaged statistics of BatchNorm, too."""
    engine.settle()
    if averages is not None:
        with averages.applied():
            engine.settle()


def _places(model: nn.Module) -> Iterator[tuple[str, tuple[dict[str, Any], str]]]:
    """Where each tensor of `model.state_dict()` stands: an engine may put another in its place."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        start = f"{prefix}." if prefix else ""
        kept = module._buffers.keys() - module._non_persistent_buffers_set
        for tensors, names in ((module._parameters, module._parameters.keys()), (module._buffers, kept)):
            for name in [name for name in tensors if name in names and tensors[name] is not None]:
                yield f"{start}{name}", (tensors, name)


def _is_averaged(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _own(tensor: Tensor) -> Tensor:
    """This rank's share of what is sharded; the tensor itself, where it is whole."""
    share: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return share
