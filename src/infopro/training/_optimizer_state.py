"""The state of an optimizer by the names of the parameters, so that any process finds its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from infopro.engines.shards import placed
from infopro.errors import BadRun
from infopro.local import LocalModel

__all__ = ["matching_groups", "pack", "parameter_names", "parameter_of", "restore"]

_NOT_SETTINGS = ("params", "param_names")


def parameter_names(local: LocalModel, optimizer: torch.optim.Optimizer) -> list[list[str]]:
    """What `local.named_parameters()` calls the parameters of each group.

    Raises:
        BadRun: the optimizer holds a parameter that `local` does not have.
    """
    called = {parameter: name for name, parameter in local.named_parameters()}
    try:
        return [[called[parameter] for parameter in group["params"]] for group in optimizer.param_groups]
    except KeyError as error:
        raise BadRun(
            "the optimizer holds a parameter that the network does not have",
            remedy="build the optimizer from local.parameters()",
        ) from error


def pack(
    local: LocalModel, optimizer: torch.optim.Optimizer, names: Collection[str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of the parameters called `names`: tensors as `PARAMETER.STATE`, and what goes into JSON."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    groups = []
    packed = optimizer.state_dict()
    for group, called in zip(packed["param_groups"], parameter_names(local, optimizer), strict=True):
        kept = [(index, name) for index, name in zip(group["params"], called, strict=True) if name in names]
        for index, parameter in kept:
            for name, value in packed["state"].get(index, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{parameter}.{name}"] = value
                else:
                    values.setdefault(parameter, {})[name] = value
        settings = {name: value for name, value in group.items() if name not in _NOT_SETTINGS}
        if kept:
            groups.append({"hyperparameters": settings, "parameters": [name for _, name in kept]})
    return tensors, {"values": values, "groups": groups}


def parameter_of(key: str) -> str:
    """The parameter in `PARAMETER.STATE`: its name has dots, that of a state has none."""
    return key.rpartition(".")[0]


def matching_groups(
    groups: list[dict[str, Any]], local: LocalModel, optimizer: torch.optim.Optimizer
) -> list[dict[str, Any]]:
    """The optimizer's own groups with the stored hyperparameters.

    Raises:
        BadRun: the stored groups are not those of the parameters that this process holds.
    """
    called = parameter_names(local, optimizer)
    stored = {name: group["hyperparameters"] for group in groups for name in group["parameters"]}
    here = {name for name, parameter in local.named_parameters() if not parameter.is_meta}
    if (stored.keys() & here) != {name for names in called for name in names}:
        raise _another_optimizer()
    found = []
    for group, names in zip(optimizer.state_dict()["param_groups"], called, strict=True):
        settings = [stored[name] for name in names] or [{}]
        if any(other != settings[0] for other in settings) or not _fit(settings[0], group):
            raise _another_optimizer()
        found.append({**group, **settings[0]})
    return found


def _fit(settings: Mapping[str, Any], group: Mapping[str, Any]) -> bool:
    """Whether stored hyperparameters are of the kinds that this optimizer has, as far as it has them."""
    known = {name: (value, group[name]) for name, value in settings.items() if name in group}
    return not settings.keys() & set(_NOT_SETTINGS) and all(_alike(*pair) for pair in known.values())


def _alike(stored: Any, own: Any) -> bool:
    if stored is None or own is None:
        return True
    if isinstance(own, tuple | list):
        return isinstance(stored, list) and len(stored) == len(own) and all(map(_alike, stored, own))
    if isinstance(own, bool) or isinstance(stored, bool):
        return isinstance(own, bool) and isinstance(stored, bool)
    return isinstance(stored, int | float) and isinstance(own, int | float)


def restore(
    optimizer: torch.optim.Optimizer,
    *,
    names: list[list[str]],
    groups: list[dict[str, Any]],
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Mapping[str, Any]],
) -> None:
    """Put state back, in tensors that are the optimizer's own and lie as its parameters do."""
    order = {name: index for index, name in enumerate(name for group in names for name in group)}
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        state.setdefault(order[parameter_of(key)], {})[key.rpartition(".")[2]] = value
    for name, plain in values.items():
        if name in order:
            state.setdefault(order[name], {}).update(plain)
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, entries in optimizer.state.items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                entries[name] = _own(value, parameter)


def _own(value: Tensor, parameter: Tensor) -> Tensor:
    """A copy with the strides that a new buffer has: files hold contiguous tensors only."""
    if value.shape != parameter.shape:
        return value.clone()
    value = placed(value, parameter)
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


def _another_optimizer() -> BadRun:
    return BadRun(
        "the checkpoint's optimizer belongs to another network", remedy="resume with the run's own recipe"
    )
