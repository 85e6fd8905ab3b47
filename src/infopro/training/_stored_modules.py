"""What a checkpoint's files hold of a module, and how it gets back into one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from infopro.engines.shards import placed
from infopro.errors import BadRun
from infopro.local import LocalModel
from infopro.training._tensor_files import read_tensors

__all__ = ["AVERAGES", "listed", "load_into", "modules_of", "read_module", "require_names", "steps_in"]

AVERAGES = "averages"  # of the network's weights: a kind of file beside model, heads and optimizer


def modules_of(local: LocalModel) -> dict[str, nn.Module]:
    """What is always stored, by kind of file."""
    return {"model": local.model, "heads": local.heads}


def listed(files: Mapping[str, Any], kind: str) -> set[str]:
    """The names of all tensors of one kind."""
    return {name for entry in files.values() if entry["kind"] == kind for name in entry["tensors"]}


def steps_in(files: Mapping[str, Any], kind: str) -> int:
    """How many training steps went into files of averages; 0 where there are none."""
    return max((int(entry["steps"]) for entry in files.values() if entry["kind"] == kind), default=0)


def require_names(path: Path, kind: str, module: nn.Module, files: Mapping[str, Any]) -> None:
    """Compare names, without reading a tensor.

    Raises:
        BadRun: a tensor that is here and not in the files, or in the files and nowhere in the module.
    """
    stored = listed(files, kind)
    missing, unexpected = _here(module).keys() - stored, stored - module.state_dict().keys()
    found = [f"{what} {_some(kind, n)}" for what, n in (("no", missing), ("also", unexpected)) if n]
    if found:
        raise _another_network(path, " but ".join(found))


def read_module(path: Path, kind: str, module: nn.Module, files: Mapping[str, Any]) -> dict[str, Tensor]:
    """What of the module is in this process, from the files of one kind; the module stays as it is.

    Raises:
        BadRun: a damaged file, a tensor of another shape.
    """
    here = _here(module)
    tensors = read_tensors(path, files, kind, here.keys())
    for name, tensor in tensors.items():
        if tensor.shape != here[name].shape:
            shapes = f"{list(tensor.shape)} instead of {list(here[name].shape)}"
            raise _another_network(path, f"{kind}.{name} of shape {shapes}")
    return tensors


def load_into(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a module the values that `read_module` found."""
    content = module.state_dict()  # not a new mapping: this one knows which version of each layer it is of
    for name in list(content):
        if name in tensors:
            content[name] = placed(tensors[name], content[name])
        else:
            del content[name]
    module.load_state_dict(content, strict=False)


def _here(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if not tensor.is_meta}


def _some(kind: str, names: Iterable[str], *, most: int = 3) -> str:
    full = [f"{kind}.{name}" for name in sorted(names)]
    return ", ".join(full[:most]) + (f" and {len(full) - most} more" if len(full) > most else "")


def _another_network(path: Path, got: str) -> BadRun:
    return BadRun(
        f"the checkpoint {path} belongs to another network",
        got=got,
        remedy="use the recipe and options that its config.json names",
    )
