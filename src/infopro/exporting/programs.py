"""The network as a program that no Python class is needed for: ONNX, and torch's own .pt2."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from infopro.data._packages import import_package
from infopro.errors import NotYetSupported
from infopro.trained_network import TrainedNetwork

__all__ = ["ONNX", "TORCH", "require_onnx", "trace", "write_onnx", "write_torch"]

ONNX, TORCH = "model.onnx", "model.pt2"
_LARGEST = 2**31 - 2**24  # bytes of weights inside an ONNX file, which protobuf limits to 2 GiB


class _Logits(nn.Module):
    """The network's main output alone."""

    def __init__(self, model: nn.Module, logits: Callable[[Any], Tensor]):
        super().__init__()
        self.model = model
        self._logits = (logits,)  # in a tuple: the task's buffers are no weights

    def forward(self, images: Tensor) -> Tensor:
        return self._logits[0](self.model(images))


def require_onnx() -> None:
    """Fail before any work.

    Raises:
        MissingPackage: onnx or onnxscript is.
    """
    for package in ("onnx", "onnxscript"):
        import_package(package, extra="onnx", purpose="--onnx")


def trace(network: TrainedNetwork, *, name: str) -> torch.export.ExportedProgram:
    """The forward pass in eval mode: normalised images [N, C, H, W] of any N and the run's size to logits.

    Raises:
        NotYetSupported: torch.export cannot record it.
    """
    wrapped = _Logits(network.model, network.task.logits).eval()
    example = torch.zeros(2, *network.image_shape)
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad(), _clear_errors(name, "recorded by torch.export"):
        return torch.export.export(wrapped, (example,), dynamic_shapes=({0: batch},))


def write_torch(program: torch.export.ExportedProgram, folder: Path) -> Path:
    """`model.pt2`, for `torch.export.load`."""
    torch.export.save(program, folder / TORCH)
    return folder / TORCH


def write_onnx(program: torch.export.ExportedProgram, folder: Path, *, name: str) -> Path:
    """`model.onnx`: input "images", output "logits".

    Raises:
        NotYetSupported: an operation that the exporter does not know.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in program.state_dict.values())
    with _clear_errors(name, "written as ONNX"):
        found = torch.onnx.export(
            program, (), input_names=["images"], output_names=["logits"], dynamo=True, verbose=False
        )
        assert found is not None
        found.save(str(folder / ONNX), external_data=size > _LARGEST)
    return folder / ONNX


@contextmanager
def _clear_errors(name: str, what: str) -> Iterator[None]:
    """One line of what torch says in many; its warnings are for its developers."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (MemoryError, OSError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise NotYetSupported(
            f"{name} cannot be {what}",
            got=f"{type(error).__name__}: {lines[0][:200]}",
            remedy="export it without --onnx and --pt2: the weights and load.py do not need this",
        ) from error
