"""Two runs' logs and checkpoints, compared bit for bit; clocks are left out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infopro.errors import BadRun
from infopro.training import RunFolder, checkpoints
from infopro.training._state_file import read_state
from infopro.training._tensor_files import read_tensors

__all__ = ["Comparison", "compare_runs"]

_CLOCKS = ("seconds", "images_per_second")
_LOGS = ("modules.jsonl", "log.jsonl")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two runs have in common, and where they first differ."""

    lines: int  # of the logs, that both have
    checkpoint: str | None  # the newest one of a whole epoch that both have
    tensors: int  # in it
    weights: str | None  # hash of the network's tensors in the first run's
    differences: tuple[str, ...]  # a line each; empty where all is the same

    @property
    def identical(self) -> bool:
        return not self.differences


def compare_runs(there: Path, here: Path) -> Comparison:
    """Compare as many lines of the logs as both have, and the newest checkpoint of a whole epoch in both.

    Raises:
        BadRun: no run in one of the folders; a log or a checkpoint that cannot be read.
    """
    left, right = RunFolder.open(there), RunFolder.open(here)
    found: list[str] = []
    lines = 0
    for name in _LOGS:
        pairs = list(zip(_lines(there / name), _lines(here / name), strict=False))
        lines += len(pairs)
        found += _first_difference(pairs)
    names = [name for name in _whole(left) if name in _whole(right)]
    if not names:
        return Comparison(lines=lines, checkpoint=None, tensors=0, weights=None, differences=tuple(found))
    name = names[-1]
    tensors, weights, of_state = _compare_checkpoints(
        left.checkpoint_folder / name, right.checkpoint_folder / name
    )
    return Comparison(
        lines=lines, checkpoint=name, tensors=tensors, weights=weights, differences=(*found, *of_state)
    )


def _whole(folder: RunFolder) -> list[str]:
    """Checkpoints of whole epochs, oldest first."""
    return [path.name for path in checkpoints(folder.checkpoint_folder) if "-step-" not in path.name]


def _lines(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    text = file.read_text()
    try:
        # a line without its end was being written when the run was killed
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    except ValueError as error:
        raise BadRun(f"{file} cannot be read", got=error) from error


def _first_difference(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> Iterator[str]:
    for left, right in pairs:
        for quantity, there, here in _unequal(left, right, ""):
            module = f"module {left['module']}, " if "module" in left else ""
            yield f"{module}epoch {left.get('epoch')}, {quantity}: {there} there, {here} here"
            return


def _unequal(left: Any, right: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """Every (name, value, value) that differs, in the order of the line."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in dict.fromkeys([*left, *right]):
            if key not in _CLOCKS:
                yield from _unequal(left.get(key), right.get(key), f"{name}.{key}" if name else key)
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from _unequal(one, other, f"{name}[{index}]")
    elif json.dumps(left) != json.dumps(right):  # NaN equals NaN here
        yield name, left, right


def _compare_checkpoints(there: Path, here: Path) -> tuple[int, str, list[str]]:
    """How many tensors were compared, the hash of the network's, and what differs, kind by kind."""
    (_, files, optimizer), (_, other_files, other_optimizer) = read_state(there), read_state(here)
    kinds = dict.fromkeys(e["kind"] for f in (files, other_files) for e in f.values())
    number, weights = 0, ""
    found: list[str] = []
    for kind in kinds:
        left, right = _tensors(there, files, kind), _tensors(here, other_files, kind)
        number += len(left)
        if kind == "model":
            weights = _hash(left)
        found += _unequal_tensors(kind, left, right, there.name)
    settings, others = _settings(optimizer), _settings(other_optimizer)
    wrong = [name for name in sorted(settings | others) if settings.get(name) != others.get(name)]
    if wrong:
        found.append(
            f"{there.name}: the optimizer's settings of {len(wrong)} parameters differ, first {wrong[0]}"
        )
    return number, weights, found


def _settings(optimizer: Mapping[str, Any]) -> dict[str, str]:
    """By parameter: how many processes had groups of them does not matter."""
    values = optimizer["values"]
    return {
        name: json.dumps([group["hyperparameters"], values.get(name)], sort_keys=True)
        for group in optimizer["groups"]
        for name in group["parameters"]
    }


def _tensors(path: Path, files: Mapping[str, Any], kind: str) -> dict[str, Tensor]:
    wanted = {name for entry in files.values() if entry["kind"] == kind for name in entry["tensors"]}
    return read_tensors(path, files, kind, wanted)


def _unequal_tensors(
    kind: str, left: Mapping[str, Tensor], right: Mapping[str, Tensor], where: str
) -> Iterator[str]:
    names = sorted(left.keys() | right.keys())
    wrong = [name for name in names if not _same(left.get(name), right.get(name))]
    if wrong:
        first = f"first {wrong[0]}{_distance(left.get(wrong[0]), right.get(wrong[0]))}"
        yield f"{where}: {len(wrong)} of {len(names)} tensors of the {kind} differ, {first}"


def _same(left: Tensor | None, right: Tensor | None) -> bool:
    """The same bits: NaN equals itself, 0 is not -0."""
    if left is None or right is None or left.shape != right.shape or left.dtype != right.dtype:
        return False
    return torch.equal(_bytes(left), _bytes(right))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _distance(left: Tensor | None, right: Tensor | None) -> str:
    if left is None or right is None:
        return ", which one of them lacks"
    if left.shape != right.shape or left.dtype != right.dtype:
        return f", {left.dtype} {list(left.shape)} there, {right.dtype} {list(right.shape)} here"
    return f" by at most {(left.double() - right.double()).abs().max().item():.3g}"


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + _bytes(tensors[name]).numpy().tobytes())
    return digest.hexdigest()[:12]
