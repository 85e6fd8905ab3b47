"""Kill a small run again and again, resume it each time, and compare it bit for bit with an undisturbed one.

    python benchmarks/kill_and_resume.py --kills 25 --markdown benchmarks/results/kill_and_resume.md

A network with dropout and BatchNorm, two modules, random crops and flips. Half of the kills (SIGKILL) come
at a random time, half at a random one of the moments at which a run changes its folder: before or in the
middle of a file of tensors, before an fsync, before a rename. Between them the run is stopped by SIGTERM at
random times, so that it goes on from the middle of an epoch, too. Whenever a run comes to its end, weights,
optimizer state and log are compared with the undisturbed run's and a new one begins. Every start is a
process forked from this one, which has imported all that a run imports and has computed nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from infopro import cli, recipes  # noqa: F401  (imported once, before forking)

IMAGES = 32
CLOCKS = ("seconds", "images_per_second")
FILES = ("model.safetensors", "heads.safetensors", "optimizer.safetensors")


@dataclass
class Tally:
    """What happened."""

    kills: Counter[str] = field(default_factory=Counter)
    stops: int = 0
    slowest_stop: float = 0.0
    compared: int = 0
    different: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Study:
    """Where the run is, and how it is started."""

    folder: Path
    data: Path
    epochs: int
    model: str

    def arguments(self, output: Path) -> list[str]:
        options = {
            "data": self.data,
            "model": self.model,
            "num-modules": 2,
            "objective": "dgl",
            "epochs": self.epochs,
            "batch-size": 8,
            "learning-rate": 0.05,
            "schedule": "cosine",
            "warmup-epochs": 1,
            "device": "cpu",
            "output": output,
        }
        return ["train", *(f"--{name}={value}" for name, value in options.items()), "--resume"]

    def start(self, output: Path, *, kill_at: int | None = None, count_in: Path | None = None) -> int:
        """The process that goes on with the run, and kills itself at moment `kill_at`, counted from 1."""
        child = os.fork()
        if child:
            return child
        status = 1
        try:
            said = os.open(self.folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(said, 1)
            os.dup2(said, 2)
            moments = Moments(kill_at, self.folder / "killed-at.txt")
            status = cli.main(self.arguments(output))
            if count_in is not None:
                count_in.write_text("\n".join([str(moments.count), *sys.modules]))
        finally:
            os._exit(status)


class Moments:
    """The moments at which a run changes its folder, counted; at one of them the process dies."""

    def __init__(self, kill_at: int | None, note: Path):
        self.count, self._kill_at, self._note = 0, kill_at, note
        save_file, fsync, replace = safetensors.torch.save_file, os.fsync, os.replace

        def save(content, file):
            self._come_to("before a file of tensors")
            self._come_to("in the middle of a file of tensors", file)
            save_file(content, file)

        def sync(descriptor):
            self._come_to("before an fsync")
            fsync(descriptor)

        def rename(old, new):
            self._come_to("before a rename")
            replace(old, new)

        safetensors.torch.save_file, os.fsync, os.replace = save, sync, rename

    def _come_to(self, what: str, file: Path | None = None) -> None:
        self.count += 1
        if self.count == self._kill_at:
            if file is not None:
                file.write_bytes(b"\x10\x27\0\0\0\0\0\0" + bytes(3000))
            self._note.write_text(what)
            os.kill(os.getpid(), signal.SIGKILL)


def write_data(file: Path, *, size: int = IMAGES) -> None:
    """Images of 3 classes, the class the brightest colour."""
    generator = np.random.default_rng(0)
    labels = np.arange(size) % 3
    images = generator.integers(0, 100, (size, 32, 32, 3), dtype=np.uint8)
    images[np.arange(size), :, :, labels] += 60
    parts = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    np.savez(file, **parts)


def result(output: Path, epochs: int) -> dict[str, object]:
    """All that a run leaves but what clocks say."""
    last = output / "checkpoints" / f"epoch-{epochs:04d}"
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return {
        **{name: (last / name).read_bytes() for name in FILES},
        "state.json": json.loads((last / "state.json").read_text()),
        "log.jsonl": [{k: v for k, v in line.items() if k not in CLOCKS} for line in log],
        "files": sorted(str(file.relative_to(output)) for file in (output / "checkpoints").rglob("*")),
    }


def wait(child: int) -> int:
    """How the process ended: its status, or minus the signal's number."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def disturb(study: Study, output: Path, tally: Tally, chance: random.Random, seconds: float, moments: int):
    """One start that is killed or stopped, unless it comes to its end first; whether it did."""
    if chance.random() < 0.25:
        child = study.start(output)
        time.sleep(chance.uniform(0, seconds))
        os.kill(child, signal.SIGTERM)
        begun = time.monotonic()
        status = wait(child)
        if status == 143:  # -15: before it listens, there is nothing to save
            tally.slowest_stop = max(tally.slowest_stop, time.monotonic() - begun)
        tally.stops += status == 143
        require(status in (0, 143, -signal.SIGTERM), study, status)
        return status == 0
    if chance.random() < 0.5:
        child, where = study.start(output), "at a random time"
        time.sleep(chance.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        status = wait(child)
    else:
        status = wait(study.start(output, kill_at=chance.randint(1, moments)))
        where = (study.folder / "killed-at.txt").read_text() if status == -signal.SIGKILL else ""
    require(status in (0, -signal.SIGKILL), study, status)
    if status:
        tally.kills[where] += 1
    return status == 0


def finish(study: Study, output: Path, **options: Any) -> None:
    status = wait(study.start(output, **options))
    require(status == 0, study, status)


def import_all(names: list[str]) -> None:
    """What the first run has imported, so that the others need not."""
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def require(sound: bool, study: Study, status: int) -> None:
    if not sound:
        raise SystemExit(f"status {status}:\n{(study.folder / 'output.txt').read_text()[-3000:]}")


def compare(study: Study, output: Path, expected: dict[str, object], tally: Tally) -> None:
    found = result(output, study.epochs)
    tally.compared += 1
    tally.different += [f"{output.name}: {name}" for name in expected if found[name] != expected[name]]


def run(study: Study, kills: int, seed: int) -> Tally:
    """Kill and resume until there were enough kills, and finish the last run."""
    chance, tally = random.Random(seed), Tally()
    counted = study.folder / "moments.txt"
    finish(study, study.folder / "undisturbed", count_in=counted)
    count, *modules = counted.read_text().splitlines()
    import_all(modules)
    expected, begun = result(study.folder / "undisturbed", study.epochs), time.monotonic()
    finish(study, study.folder / "run-1")
    seconds = time.monotonic() - begun
    compare(study, study.folder / "run-1", expected, tally)
    output = study.folder / "run-2"
    while tally.kills.total() < kills:
        if disturb(study, output, tally, chance, seconds, int(count)):
            compare(study, output, expected, tally)
            output = study.folder / f"run-{tally.compared + 1}"
    finish(study, output)
    compare(study, output, expected, tally)
    return tally


def page(tally: Tally, study: Study, seed: int) -> str:
    different = len(tally.different)
    kills = "\n".join(f"| SIGKILL {where} | {number} |" for where, number in sorted(tally.kills.items()))
    return f"""# Kill and resume

`python benchmarks/kill_and_resume.py --kills {tally.kills.total()} --epochs {study.epochs} --seed {seed}`,
torch {torch.__version__}, CPU. {study.model} (dropout and BatchNorm), two modules, objective dgl,
{IMAGES} images of 32 x 32 pixels, {study.epochs} epochs of {IMAGES // 8} steps.

| what | times |
| --- | ---: |
{kills}
| SIGKILL in all | {tally.kills.total()} |
| SIGTERM, which left a checkpoint | {tally.stops} |
| runs that came to their end, each compared with an undisturbed one | {tally.compared} |
| files or logs of those that differ: weights, heads, optimizer state, state.json, log | {different} |

The slowest stop by SIGTERM took {tally.slowest_stop:.1f} s.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--model", default="torchvision/mobilenet_v3_small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", type=Path, help="file to write the table to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), Path(folder) / "images.npz", options.epochs, options.model)
        write_data(study.data)
        tally = run(study, options.kills, options.seed)
        text = page(tally, study, options.seed)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text)
    for line in tally.different:
        print(f"different: {line}", file=sys.stderr)
    return 1 if tally.different else 0


if __name__ == "__main__":
    raise SystemExit(main())
