"""Fuzzing of the readers of files that others may have written, guided by coverage; not part of the tests.

    pip install atheris
    python benchmarks/fuzz/targets.py checkpoint -max_total_time=300
    python benchmarks/fuzz/targets.py run -max_total_time=300
    python benchmarks/fuzz/targets.py npz -max_total_time=300

What follows the name goes to libFuzzer. Whatever is not read must be refused by an InfoProError of one line;
anything else ends the program with the input that did it. What was found: benchmarks/results/fuzz.md.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import atheris
import numpy as np
import torch
from torch import nn

with atheris.instrument_imports(include=["infopro"]):
    from infopro import recipes
    from infopro.data import npz_file
    from infopro.recipes._stored import from_plain, plain
    from infopro.training import RunFolder, load_model
    from infopro.training._kept import newest_intact
    from infopro.training._tensor_files import write_tensors

from infopro.errors import InfoProError


def checkpoint(folder: Path) -> tuple[Callable[[bytes], object], list[bytes]]:
    """`state.json` as it comes, or with a checksum that fits and a value changed; a file of tensors."""
    model = nn.Linear(2, 1)
    path = folder / "epoch-0001"
    path.mkdir()
    tensors = path / "model.safetensors"
    entry = write_tensors(tensors, "model", model.state_dict())
    record = {
        "format": 2,
        "epoch": 1,
        "best_test_error": 12.5,
        "configuration": {"epochs": 1},
        "step": 0,
        "totals": {"count": 3},
        "files": {tensors.name: entry},
        "optimizer": {"values": {}, "groups": [{"hyperparameters": {"lr": 0.1}, "parameters": ["weight"]}]},
    }
    whole, places = tensors.read_bytes(), list(_places(record))

    @atheris.instrument_func
    def one(data: bytes) -> None:
        way, content = data[:1], data[1:]
        tensors.write_bytes(whole)
        if way == b"t":
            tensors.write_bytes(content)
            found = {**record, "files": {tensors.name: {**entry, "sha256": _sha256(content)}}}
            (path / "state.json").write_bytes(_sealed(found))
        elif way == b"p":
            (path / "state.json").write_bytes(_sealed(_changed(record, places, content)))
        else:
            (path / "state.json").write_bytes(_resealed(content) if way == b"s" else content)
        load_model(path, model)
        newest_intact(folder)

    changes = [b"p" + bytes([number]) * 24 for number in range(len(places))]
    seeds = [*changes, b"s" + json.dumps(record).encode(), b"r" + _sealed(record), b"t" + whole]
    return one, seeds


def run(folder: Path) -> tuple[Callable[[bytes], object], list[bytes]]:
    """`config.json`, `run.json` and `log.jsonl` of a run."""
    config = json.dumps(plain(recipes.RunConfig())).encode()
    log = b'{"epoch": 1, "losses": [{"total": 1.0}], "test_error": 3.0}\n'
    runs = RunFolder.create(folder / "run", configuration={}, record={})
    values = plain(recipes.RunConfig())
    record = {
        "name": "a",
        "image_shape": [3, 4, 4],
        "num_classes": 2,
        "class_names": ["a", "b"],
        "colours": [[0, 0, 0], [1, 2, 3]],
        "mean": [0.5, 0.5, 0.5],
        "skipped_images": {"a.png": "the file is empty"},
    }
    places, of_record = list(_places(values)), list(_places(record))

    @atheris.instrument_func
    def one(data: bytes) -> None:
        way, content = data[:1], data[1:]
        name = {b"c": "config.json", b"r": "run.json"}.get(way, "log.jsonl")
        (runs.path / name).write_bytes(content)
        if way == b"p":
            recipes.check(from_plain(_changed(values, places, content)))
        elif way == b"q":
            (runs.path / "run.json").write_text(json.dumps(_changed(record, of_record, content)))
            recipes.skipped_before(runs.path)
        elif way == b"c":
            recipes.check(from_plain(runs.configuration))
        elif way == b"r":
            recipes.skipped_before(runs.path)
        else:
            runs.log()

    changes = [b"p" + bytes([number]) * 24 for number in range(len(places))]
    changes += [b"q" + bytes([number]) * 24 for number in range(len(of_record))]
    return one, [*changes, b"c" + config, b"r" + json.dumps(record).encode(), b"l" + log]


def npz(folder: Path) -> tuple[Callable[[bytes], object], list[bytes]]:
    """An .npz file."""
    images, labels = np.zeros((4, 2, 2), np.uint8), np.arange(4) % 2
    seeds = []
    for save in (np.savez, np.savez_compressed):
        save(folder / "seed.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
        seeds.append((folder / "seed.npz").read_bytes())

    def one(data: bytes) -> None:
        (folder / "a.npz").write_bytes(data)
        npz_file(folder / "a.npz")

    return one, seeds


def _places(value: object, before: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to everything in a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield (*before, key)
        yield from _places(part, (*before, key))


def _changed(
    record: dict[str, object], places: Sequence[tuple[str | int, ...]], data: bytes
) -> dict[str, Any]:
    """The record with another value in one place, both as the data say."""
    provider = atheris.FuzzedDataProvider(data)
    found: dict[str, Any] = json.loads(json.dumps(record))
    place = places[provider.ConsumeIntInRange(0, len(places) - 1)]
    inside: Any = found
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = _value(provider, 3)
    return found


def _value(provider: Any, depth: int) -> Any:
    kind = provider.ConsumeIntInRange(0, 6 if depth else 4)
    if kind == 5:
        return [_value(provider, depth - 1) for _ in range(provider.ConsumeIntInRange(0, 3))]
    if kind == 6:
        names = [provider.ConsumeUnicodeNoSurrogates(6) for _ in range(provider.ConsumeIntInRange(0, 3))]
        return {name: _value(provider, depth - 1) for name in names}
    simple: list[Callable[[], Any]] = [
        lambda: None,
        provider.ConsumeBool,
        lambda: provider.ConsumeInt(9),
        provider.ConsumeFloat,
        lambda: provider.ConsumeUnicode(12),
    ]
    return simple[kind]()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sealed(record: dict[str, object]) -> bytes:
    return json.dumps({**record, "checksum": _sha256(json.dumps(record).encode())}).encode()


def _resealed(content: bytes) -> bytes:
    try:
        record = json.loads(content)
        return _sealed(record) if isinstance(record, dict) else content
    except (ValueError, RecursionError):
        return content


def _guarded(one: Callable[[bytes], object]) -> Callable[[bytes], None]:
    def test(data: bytes) -> None:
        try:
            one(data)
        except InfoProError as error:
            assert len(str(error).splitlines()) == 1, str(error)

    return test


def main() -> None:
    """Fuzz the target that the command line names."""
    targets = {"checkpoint": checkpoint, "run": run, "npz": npz}
    if len(sys.argv) < 2 or sys.argv[1] not in targets:
        sys.exit(f"usage: targets.py {'|'.join(targets)} [libFuzzer's options]")
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "work").mkdir()
        (Path(place) / "corpus").mkdir()
        one, seeds = targets[sys.argv[1]](Path(place) / "work")
        _guarded(one)(seeds[-1])  # what is imported at first use would count as slow
        for number, seed in enumerate(seeds):
            (Path(place) / "corpus" / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *sys.argv[2:], f"{place}/corpus"], _guarded(one))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
