"""The runs of `kill_and_resume.py`: how each cell's are started, killed at a moment, and read afterwards."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import signal
import socket
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from PIL import Image
from torch import nn

from infopro import cli, models
from infopro.data import image_folder
from infopro.recipes import _running
from infopro.stopping import StopRequest
from infopro.training import reading

IMAGES, SIDE, BATCH, TESTED_AT_ONCE = 32, 16, 8, 16
CLOCKS = ("seconds", "images_per_second")


def network(name: str, *, num_classes: int, in_channels: int, **_: Any) -> nn.Module:
    """Small, and with what depends on more than weights: dropout's random stream, BatchNorm's statistics."""
    widths = (in_channels, 8, 12, 16, 16)
    blocks = [
        nn.Sequential(
            nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.Dropout(0.2)
        )
        for a, b in itertools.pairwise(widths)
    ]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes))


models.create = network
_running.write_timeline_page = lambda *_, **__: "nowhere"  # of a pipeline: it would take most of the time
# files are read batch by batch, by workers, though they would fit into memory; a test has several batches
image_folder.__kwdefaults__["max_bytes"] = 0
reading._MOST_IMAGES = TESTED_AT_ONCE


@dataclass(frozen=True)
class Way:
    """How a run is started: any of a cell's ways goes on with what another one left."""

    parallel: str = "none"
    processes: int = 1
    workers: int = 0
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """Runs of one kind. The first way makes the undisturbed run."""

    name: str
    ways: tuple[Way, ...]
    precision: str = "float32"
    files: bool = False  # images read from files, batch by batch, else held in memory
    options: tuple[str, ...] = ()
    exact: bool = True  # else no two runs are equal: only how far they have come is compared


SYNCHRONISED = ("--synchronise-batch-norm=true",)
PIPELINE, DATA = Way("pipeline", 2), Way("data", 2)
AVERAGED = ("--average-weights=0.99",)
CELLS = (
    Cell("one process", (Way(),)),
    Cell("one process, clipped", (Way(),), options=("--clip-gradients=0.5",)),
    Cell("one process", (Way(workers=2),), "bfloat16", files=True),
    Cell("one process, workers 2 or 0 by turns", (Way(workers=2), Way(workers=0)), files=True),
    Cell("pipeline of 2", (PIPELINE,), "bfloat16"),
    Cell("pipeline of 2", (Way("pipeline", 2, workers=2),), files=True),
    Cell("pipeline of 2 or one process by turns", (Way(), PIPELINE)),
    Cell("data of 2", (DATA,)),
    Cell("data of 2, BatchNorm synchronised", (Way("data", 2, 2),), "bfloat16", True, SYNCHRONISED),
    Cell("data of 2, sharded", (Way("data", 2, 2, ("--shard",)),), files=True),
    Cell("pipeline of 2, 2 replicas each", (Way("pipeline", 4),)),
    Cell("cached", (Way("cached"),), options=("--views=2",)),
    Cell("cached", (Way("cached", workers=2),), "bfloat16", files=True),
    Cell("one process, averaged weights", (Way(workers=2),), "bfloat16", True, AVERAGED),
    Cell("pipeline of 2, averaged weights", (PIPELINE,), options=AVERAGED),
    Cell("data of 2, averaged weights", (DATA,), options=AVERAGED),
    Cell("decoupled, which is not exact", (Way("decoupled", 2),), exact=False),
)


@dataclass(frozen=True)
class Study:
    """Where a cell's runs are, and how they are started."""

    folder: Path
    cell: Cell
    epochs: int
    timeout: int  # seconds that processes wait for one that is lost

    @property
    def output(self) -> Path:
        return self.folder / "output.txt"

    def arguments(self, run: Path, way: Way) -> list[str]:
        options = {
            "data": self.folder / ("images" if self.cell.files else "images.npz"),
            "image-size": SIDE,
            "model": "cifar_resnet20",  # a name is needed: `network` is built
            "num-modules": 2,
            "objective": "dgl",
            "epochs": self.epochs,
            "batch-size": BATCH,
            "learning-rate": 0.05,
            "schedule": "cosine",
            "warmup-epochs": 1,
            "device": "cpu",
            "precision": self.cell.precision,
            "parallel": way.parallel,
            "num-workers": way.workers,
            "timeout": self.timeout,
            "output": run,
        }
        given = [f"--{name}={value}" for name, value in options.items()]
        return ["train", *given, *self.cell.options, *way.options, "--resume"]

    def start(self, run: Path, way: Way, **what: Any) -> list[int]:
        """The processes that go on with the run, forked from this one, in a process group of their own.

        `what`, for the process of the rank `where`: see `Moments` and `Questions`.
        """
        where, port, ranks = what.pop("where", 0), free_port(), []
        for rank in range(way.processes):
            child = os.fork()
            if not child:
                os.setpgid(0, ranks[0] if ranks else 0)
                self._run(run, way, rank, port, what if rank == where else {})
            os.setpgid(child, ranks[0] if ranks else child)
            ranks.append(child)
        return ranks

    def _run(self, run: Path, way: Way, rank: int, port: int, what: dict[str, Any]) -> None:
        status = 70
        try:
            said = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(said, 1)
            os.dup2(said, 2)
            if way.processes > 1:
                place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": way.processes, "MASTER_PORT": port}
                os.environ.update({name: str(value) for name, value in place.items()})
                os.environ["MASTER_ADDR"] = "127.0.0.1"
            moments = Moments(what.get("kill_at"), self.folder / "killed-at.txt")
            questions = Questions(what.get("stop_at"))
            status = cli.main(self.arguments(run, way))
            counted = f"{moments.count} {questions.count}"
            (self.folder / f"counted-{rank}.txt").write_text("\n".join([counted, *sys.modules]))
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()  # what the command line did not turn into a message
        finally:
            os._exit(status)

    def counted(self) -> tuple[int, int]:
        """Moments of the process with most of them, and questions of the first; imports what the run has."""
        moments, questions = [], []
        for file in sorted(self.folder.glob("counted-*.txt")):
            counts, *modules = file.read_text().splitlines()
            for place, number in zip((moments, questions), counts.split(), strict=True):
                place.append(int(number))
            import_all(modules)
        return max(moments), questions[0]


def import_all(names: list[str]) -> None:
    """What the first run has imported, so that the others need not."""
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


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


class Questions:
    """Whether to stop is asked before every batch; before one of them the process gets SIGTERM."""

    def __init__(self, stop_at: int | None):
        self.count, self._stop_at = 0, stop_at
        ask = StopRequest.__call__

        def asked(request):
            self.count += 1
            if self.count == self._stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return ask(request)

        StopRequest.__call__ = asked


def write_data(folder: Path, *, size: int = IMAGES) -> None:
    """Images of 3 classes, the class the brightest colour: as one file, and as a file each."""
    generator = np.random.default_rng(0)
    labels = np.arange(size) % 3
    images = generator.integers(0, 100, (size, SIDE, SIDE, 3), dtype=np.uint8)
    images[np.arange(size), :, :, labels] += 60
    parts = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    np.savez(folder / "images.npz", **parts)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        for part in ("train", "val"):
            file = folder / "images" / part / "rgb"[label] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(file)


def progress(run: Path) -> dict[str, object]:
    """How far a run has come: a line for each epoch, once and in order, and what the last checkpoint says."""
    last = sorted((run / "checkpoints").glob("epoch-*"))[-1]
    files = ("log.jsonl", *(file.name for file in run.glob("module-*.jsonl")))
    lines = {name: (run / name).read_text().splitlines() for name in files}
    epochs = {name: [json.loads(line)["epoch"] for line in found] for name, found in lines.items()}
    return {**epochs, "checkpoint": last.name, "leftovers": leftovers(run)}


def leftovers(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").glob(".*"))


def result(run: Path) -> dict[str, object]:
    """All that a run leaves but what clocks say, and which process wrote what."""
    last = sorted((run / "checkpoints").glob("epoch-*"))[-1]
    state = json.loads((last / "state.json").read_text())
    groups = [group["hyperparameters"] for group in state["optimizer"]["groups"]]
    kept = {name: state[name] for name in ("epoch", "step", "best_test_error", "totals")}
    found: dict[str, object] = {"state.json": (kept, state["optimizer"]["values"], groups[-1])}
    for file in last.glob("*.safetensors"):
        kind = state["files"][file.name]["kind"]
        for name, tensor in safetensors.torch.load_file(file).items():
            found[f"{kind}: {name}"] = (tensor.dtype, tuple(tensor.shape), tensor.numpy(force=True).tobytes())
    for name in ("log.jsonl", "modules.jsonl"):
        lines = (run / name).read_text().splitlines() if (run / name).exists() else []
        found[name] = [{k: v for k, v in json.loads(t).items() if k not in CLOCKS} for t in lines]
    found["leftovers"] = leftovers(run)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
