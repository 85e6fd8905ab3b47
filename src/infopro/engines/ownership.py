"""Which parameters and buffers a module owns, and a network of which only some are left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from infopro.errors import BadConfiguration, NotYetSupported
from infopro.local import LocalModel

__all__ = ["check_apart", "check_separable", "keep_only", "owned_names"]


def owned_names(local: LocalModel, stages: Iterable[int]) -> set[str]:
    """Names, as in `local.state_dict()`, of what these modules and their heads own.

    What no module reads (an unused token) belongs to the last one.
    """
    wanted = set(stages)
    by_stage = [_network_names(local, index) for index in range(len(local.stages))]
    names = {f"model.{name}" for index in wanted for name in by_stage[index]}
    if len(local.stages) - 1 in wanted:
        everything = {name for name, _ in _tensors(local.model)}
        names |= {f"model.{name}" for name in everything - set().union(*by_stage)}
    names |= {name for name, _ in _tensors(local) if _head_of(name) in wanted}
    return names


def keep_only(local: LocalModel, stages: Iterable[int]) -> None:
    """Give the memory of all other modules back: their parameters and buffers become meta tensors."""
    wanted = set(stages)
    kept = owned_names(local, wanted)
    everyones = {id(tensor) for _, tensor in _tensors(local.task)}
    for prefix, module in local.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and f"{prefix}.{name}" not in kept and id(tensor) not in everyones:
                    tensors[name] = _on_meta(tensor)
    for index, stage in enumerate(local.stages):
        if index not in wanted:  # what a part reads between its blocks, it holds itself, too
            for name, tensor in stage.part._parameters.items():
                stage.part._parameters[name] = _on_meta(tensor)  # type: ignore[arg-type,assignment]


def check_separable(local: LocalModel) -> None:
    """Refuse a network whose modules cannot live in processes of their own.

    Raises:
        NotYetSupported: see `check_apart`.
        BadConfiguration: a module without anything to train.
    """
    check_apart(local, remedy="train all modules together, in one process")
    stages = enumerate(local.stages, start=1)
    empty = [k for k, stage in stages if not any(p.requires_grad for p in stage.parameters())]
    if empty:
        raise BadConfiguration(
            "a module has no parameters to train",
            got=f"module {', '.join(map(str, empty))}",
            remedy="choose other cuts: infopro list models, infopro check MODEL",
        )


def check_apart(local: LocalModel, *, remedy: str) -> None:
    """Refuse modules that cannot be trained apart from each other.

    Raises:
        NotYetSupported: modules that run together only, or share a trained parameter.
    """
    if local.split.live:
        raise NotYetSupported(
            "the modules of this network run together only",
            got=local.split.notes[0] if local.split.notes else None,
            remedy=remedy,
        )
    owners: dict[str, int] = {}
    for index in range(len(local.stages)):
        for name in sorted(_network_names(local, index)):
            if owners.setdefault(name, index) != index and _is_trained(local.model, name):
                raise NotYetSupported(
                    "two modules share a parameter",
                    got=f"{name} in modules {owners[name] + 1} and {index + 1}",
                    remedy=f"cut elsewhere, or {remedy}",
                )


def _network_names(local: LocalModel, stage: int) -> set[str]:
    """By the network's own names, what one module's blocks and the code between them read."""
    own = {id(t) for t in local.stages[stage].part.tensors()}
    return {name for name, tensor in _tensors(local.model) if id(tensor) in own}


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def _head_of(name: str) -> int | None:
    kind, _, rest = name.partition(".")
    return int(rest.partition(".")[0]) if kind == "heads" else None


def _is_trained(model: nn.Module, name: str) -> bool:
    owner, _, attribute = name.rpartition(".")
    tensor = getattr(model.get_submodule(owner), attribute)
    return isinstance(tensor, nn.Parameter) and tensor.requires_grad


def _on_meta(tensor: Tensor) -> Tensor:
    empty = tensor.detach().to("meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty
