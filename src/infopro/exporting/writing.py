"""From a run's checkpoint to a folder that loads without this package."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from infopro.data._messages import quoted
from infopro.errors import BadConfiguration
from infopro.exporting import programs
from infopro.exporting.description import describe
from infopro.exporting.loading import WEIGHTS, loading_code, timm_config
from infopro.models import Construction, construction
from infopro.recipes import from_plain
from infopro.trained_network import TrainedNetwork, load_network
from infopro.training import RunFolder
from infopro.writable import require_writable

__all__ = ["Exported", "export_run"]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export wrote."""

    folder: Path
    files: tuple[str, ...]
    description: dict[str, Any]  # what model.json holds

    @property
    def needs_infopro(self) -> bool:
        """Whether `load.py` imports this package: the network is one of its own."""
        return bool(self.description["library"]["package"] == "infopro")


def export_run(
    path: Path, output: Path, *, best: bool = False, onnx: bool = False, pt2: bool = False
) -> Exported:
    """Write the network of a run's checkpoint, without its heads, into a new folder.

    The network is what `evaluate` tests. The folder is there as a whole or not at all.

    Args:
        best: the checkpoint of the epoch with the best test result, instead of the last one.
        onnx: also `model.onnx`, for any number of images of the run's size.
        pt2: also `model.pt2`, torch's own form of such a program.

    Raises:
        BadConfiguration: the folder exists. BadRun: no run, no checkpoint. MissingPackage: what ONNX needs.
        NotYetSupported: a network that cannot be recorded as a program.

    Example:
        >>> export_run(Path("nowhere"), Path("network"))
        Traceback (most recent call last):
        infopro.errors.BadRun: the run folder does not exist: got nowhere; pass the folder that infopro ...
    """
    folder = RunFolder.open(path)
    _refuse_existing(output)
    require_writable(output.parent)
    if onnx:
        programs.require_onnx()
    network = load_network(path, device=torch.device("cpu"), best=best)
    config = from_plain(folder.configuration)
    channels, rows, columns = network.image_shape
    built = construction(
        config.model,
        num_classes=len(network.class_names),
        in_channels=channels,
        image_size=(rows, columns),
    )
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
    partial.mkdir(parents=True)
    try:
        description = _write(partial, network, folder, built)
        _write_programs(partial, network, name=config.model, onnx=onnx, pt2=pt2)
        files = tuple(sorted(file.name for file in partial.iterdir()))
        os.rename(partial, output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Exported(folder=output, files=files, description=description)


def _write(partial: Path, network: TrainedNetwork, folder: RunFolder, built: Construction) -> dict[str, Any]:
    from safetensors.torch import save_file

    # contiguous copies: safetensors refuses strided and shared tensors
    state = network.model.state_dict()
    weights = {name: tensor.detach().contiguous().clone() for name, tensor in state.items()}
    save_file(weights, partial / WEIGHTS, metadata={"format": "pt"})
    with (partial / WEIGHTS).open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    description = describe(built, network, folder, sha256=sha256, weights=WEIGHTS)
    _write_json(partial / "model.json", description)
    shutil.copymode(partial / "model.json", partial / WEIGHTS)  # safetensors': of its owner alone
    (partial / "load.py").write_text(loading_code(built), encoding="utf-8")
    if built.package == "timm":
        _write_json(partial / "config.json", timm_config(built, network))
    return description


def _write_programs(partial: Path, network: TrainedNetwork, *, name: str, onnx: bool, pt2: bool) -> None:
    if not (onnx or pt2):
        return
    # others feed it channels-first images
    network.model.to(memory_format=torch.contiguous_format)
    program = programs.trace(network, name=name)
    if pt2:
        programs.write_torch(program, partial)
    if onnx:
        programs.write_onnx(program, partial, name=name)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _refuse_existing(output: Path) -> None:
    if output.exists() or output.is_symlink():
        raise BadConfiguration(
            "the folder for the network exists, and nothing is overwritten",
            got=quoted(output),
            remedy="pass another -o, or remove it",
        )
