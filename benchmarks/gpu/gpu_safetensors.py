"""What checkpoints need of safetensors, where that is not installed: the same files, written and read here.

A file is the length of its header (8 bytes, little-endian), the header (JSON: dtype, shape and place of every
tensor), then the tensors' bytes without gaps.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

__all__ = ["SafetensorError", "provide", "safe_open", "save_file"]

DTYPES = {
    "F64": torch.float64,
    "I64": torch.int64,
    "F32": torch.float32,
    "I32": torch.int32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class SafetensorError(Exception):
    """A file that cannot be written or is none."""


def provide() -> bool:
    """Let this process import `safetensors`; whether it had to be this stand-in."""
    try:
        importlib.import_module("safetensors")
    except ImportError:
        package, torch_part = ModuleType("safetensors"), ModuleType("safetensors.torch")
        vars(package).update(SafetensorError=SafetensorError, safe_open=safe_open, torch=torch_part)
        vars(torch_part).update(save_file=save_file)
        sys.modules |= {"safetensors": package, "safetensors.torch": torch_part}
        return True
    return False


def save_file(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write contiguous tensors of the CPU; the widest come first, so that each is aligned."""
    ordered = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header, place = {}, 0
    for name in ordered:
        tensor = tensors[name]
        offsets = [place, place := place + tensor.nbytes]
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in ordered:
            stream.write(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())


class safe_open:
    """A file, open while the context is; `get_tensor` reads one tensor of it."""

    def __init__(self, file: Path, framework: str = "pt"):
        self._content = bytearray(file.read_bytes())
        self._start = 8 + int.from_bytes(self._content[:8], "little")
        try:
            self._header = json.loads(self._content[8 : self._start])
        except ValueError as error:
            raise SafetensorError(f"{file} is no file of tensors") from error

    def __enter__(self) -> safe_open:
        return self

    def __exit__(self, *details: object) -> None:
        self._content = bytearray()

    def get_tensor(self, name: str) -> Tensor:
        """A tensor of its own memory."""
        entry = self._header[name]
        dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
        begin, _ = entry["data_offsets"]
        if not prod(shape):
            return torch.empty(shape, dtype=dtype)
        place = self._start + begin
        found = torch.frombuffer(self._content, dtype=dtype, count=prod(shape), offset=place)
        return found.clone().reshape(shape)
