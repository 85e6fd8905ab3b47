"""4,000 steps of small runs: does memory grow, does a step's time, how large does the run's folder get?

    python benchmarks/long_run.py --markdown benchmarks/results/long_run.md

Each cell is a run of its own as `infopro train` makes it: test, log line, TensorBoard point and checkpoint
after every epoch of 20 steps. Every process notes each step's time, its resident memory and how much of the
C heap is in use (glibc's mallinfo2), and every 500 steps how many objects Python's collector knows. The bare
loop is the same network in ten lines of PyTorch, without this package's training. The first 500 steps are
left out: allocators and caches fill.
A slope is a least-squares fit over the rest; its uncertainty is the standard deviation of the slopes of ten
tenths, left out one after another (jackknife), because neighbouring steps are not independent.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from infopro import models, recipes
from infopro.training import Position

CELLS = {  # parallel, processes, workers
    "one process": ("none", 1, 0),
    "one process, 2 workers": ("none", 1, 2),
    "pipeline of 2": ("pipeline", 2, 0),
    "bare loop": ("none", 1, 0),
}
IMAGES, BATCH, FIRST = 160, 8, 500
STEPS = IMAGES // BATCH  # of an epoch

NOTE = """
An epoch leaves its record, two objects, and these measurements a few numbers a step. A process of a pipeline
keeps what it did and when, for the timeline, seven objects a step: at most 50,000 spans. What resident memory
grows by beyond the heap in use is room that the allocator holds free, between what is in use."""


def write_data(file: Path) -> None:
    random = np.random.default_rng(0)
    parts = {"train": IMAGES, "test": 16}
    images = {f"x_{name}": random.integers(0, 255, (n, 8, 8, 3), dtype=np.uint8) for name, n in parts.items()}
    labels = {f"y_{name}": np.arange(n) % 3 for name, n in parts.items()}
    np.savez(file, **images, **labels)


def resident_kib() -> int:
    """VmRSS of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


class Heap(ctypes.Structure):
    """glibc's struct mallinfo2."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def heap_kib() -> int:
    """What is in use of the C heap: malloc's blocks, and larger ones in mappings of their own."""
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Heap
    found = libc.mallinfo2()
    return (found.uordblks + found.hblkhd) // 1024


class Notes:
    """What a process notes after every step."""

    def __init__(self):
        self.memory, self.heap, self.ends, self.objects = [], [], [], {}

    def __call__(self, epoch: int, done: int) -> None:
        self.ends.append(time.perf_counter())
        self.memory.append(resident_kib())
        self.heap.append(heap_kib())
        if len(self.ends) % FIRST == 0:
            gc.collect()
            self.objects[len(self.ends)] = len(gc.get_objects())

    def write(self, file: Path) -> None:
        # the first step of an epoch includes the test and the checkpoint before it
        times = [b - a for k, (a, b) in enumerate(pairwise(self.ends), 1) if k % STEPS]
        found = {"memory": self.memory, "heap": self.heap, "times": times, "objects": self.objects}
        file.write_text(json.dumps(found))


def bare(folder: Path, steps: int) -> None:
    """The network alone, end to end."""
    torch.set_num_threads(1)
    generator, labels, note = torch.Generator().manual_seed(0), torch.arange(BATCH) % 3, Notes()
    model = models.create("demo_resnet", num_classes=3, in_channels=3, image_size=(8, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, nesterov=True)
    for step in range(steps):
        images = torch.rand(BATCH, 3, 8, 8, generator=generator)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        note(1, step)
    note.write(folder / "found-0.json")


def work(cell: str, folder: Path, steps: int) -> None:
    """One process of a cell; its numbers go to a file."""
    parallel, _, workers = CELLS[cell]
    torch.set_num_threads(1)
    config = recipes.RunConfig(
        model="demo_resnet",
        data=str(folder / "data.npz"),
        objective="infopro-softmax",
        num_modules=2,
        reconstruction_weight=1.0,
        task_weight=1.0,
        epochs=steps // STEPS,
        batch_size=BATCH,
        learning_rate=0.001,
        warmup_epochs=0,
        parallel=parallel,
    )
    note, device = Notes(), torch.device("cpu")
    with recipes.meet(config, device=device, timeout_seconds=300) as processes:
        data = recipes.prepare_data(config, data_dir=None, download=False, device=device)
        session = recipes.prepare(config, data, device=device, processes=processes)
        run, _ = recipes.open_run(session, folder / "run", name="long", resume=False, data_dir=None)
        recipes.train_run(session, run, start=Position(), num_workers=workers, on_step=note)
        note.write(folder / f"found-{0 if processes is None else processes.rank}.json")
        if processes is not None:
            processes.wait_for_all("end")


def slope(values: np.ndarray) -> tuple[float, float]:
    """KiB per 1,000 steps, and its uncertainty."""
    steps = np.arange(len(values))
    tenths = np.array_split(steps, 10)
    fits = [np.polyfit(np.delete(steps, tenth), np.delete(values, tenth), 1)[0] for tenth in tenths]
    spread = np.sqrt((len(fits) - 1) / len(fits) * np.sum((fits - np.mean(fits)) ** 2))
    return 1000 * float(np.polyfit(steps, values, 1)[0]), 1000 * float(spread)


def measured(cell: str, steps: int) -> list[str]:
    """The rows of one cell."""
    _, processes, _ = CELLS[cell]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder / "data.npz")
        start = [sys.executable]
        if processes > 1:
            start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        script = [str(Path(__file__).resolve()), "--cell", cell, "--folder", name, "--steps", str(steps)]
        subprocess.run([*start, *script], check=True)
        files = [json.loads(file.read_text()) for file in sorted(folder.glob("found-*.json"))]
        run = folder / "run"
        sizes = {
            name: sum(file.stat().st_size for file in run.glob(files))
            for name, files in (
                ("checkpoints", "checkpoints/*/*"),
                ("log", "log.jsonl"),
                ("events", "tensorboard/*"),
            )
        }
    rows = []
    for rank, found in enumerate(files):
        memory, times = np.array(found["memory"][FIRST:]), found["times"]
        quarter = len(times) // 4
        ratio = statistics.median(times[-quarter:]) / statistics.median(times[quarter : 2 * quarter])
        grows, spread = slope(memory)
        heap, heap_spread = slope(np.array(found["heap"][FIRST:]))
        objects = " ".join(str(number) for number in found["objects"].values())
        epochs = steps // STEPS
        folder_size = (
            f"{sizes['checkpoints'] / 2**20:.1f} MiB, {sizes['log'] / epochs:.0f} B, "
            f"{sizes['events'] / epochs / 1024:.1f} KiB"
        )
        rows.append(
            f"| {cell}{f', process {rank}' if len(files) > 1 else ''} | {memory[0] / 1024:.0f} | "
            f"{memory[-1] / 1024:.0f} | {grows:+.0f} ± {spread:.0f} | {heap:+.0f} ± {heap_spread:.0f} | "
            f"{objects} | {ratio:.2f} | {folder_size if rank == 0 and sizes['log'] else ''} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--cell", choices=CELLS)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.folder is not None:
        if options.cell == "bare loop":
            bare(options.folder, options.steps)
        else:
            work(options.cell, options.folder, options.steps)
        return
    rows = []
    for cell in [options.cell] if options.cell else CELLS:
        rows += measured(cell, options.steps)
        print(*rows, sep="\n", flush=True)
    text = f"""# Long runs

`python benchmarks/long_run.py --steps {options.steps}`, torch {torch.__version__}, CPU, one thread a process,
{options.steps // STEPS} epochs of {STEPS} steps: a step's time is a
ratio of medians, the last quarter's to the second quarter's. Memory is resident memory, from step {FIRST} on.

| run | MiB at step {FIRST} | at the end | KiB per 1,000 steps | of these heap in use | \
objects every {FIRST} steps | time, last / second quarter | checkpoints; log, TensorBoard per epoch |
| --- | ---: | ---: | ---: | ---: | --- | ---: | --- |
""" + "\n".join([*rows, NOTE])
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text + "\n")


if __name__ == "__main__":
    main()
