"""2,000 steps of small runs: does memory grow, does a step's time, how large does the run's folder get?

    python benchmarks/long_run.py --markdown benchmarks/results/long_run.md

Each cell is a run of its own as `infopro train` makes it: test, log line, TensorBoard point and checkpoint
after every epoch of 20 steps. Every process notes each step's time and its resident memory, and every 500
steps how many objects Python's collector knows. The first 500 steps are left out: allocators and caches fill.
A slope is a least-squares fit over the rest; its uncertainty is the standard deviation of the slopes of ten
tenths, left out one after another (jackknife), because neighbouring steps are not independent.
"""

from __future__ import annotations

import argparse
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

from infopro import recipes
from infopro.training import Position

CELLS = {  # parallel, processes, workers
    "one process": ("none", 1, 0),
    "one process, 2 workers": ("none", 1, 2),
    "pipeline of 2": ("pipeline", 2, 0),
}
IMAGES, BATCH, FIRST = 160, 8, 500
STEPS = IMAGES // BATCH  # of an epoch

NOTE = """
An epoch leaves its record, two objects. A process of a pipeline keeps what it did and when, for the timeline:
at most 50,000 spans, and this run is shorter than that. In one process the growth is less than 0.2 % of the
memory in 1,000 steps; the objects that Python counts are not it, and its source was not found."""


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
    memory, ends, objects = [], [], {}

    def note(epoch: int, done: int) -> None:
        ends.append(time.perf_counter())
        memory.append(resident_kib())
        if len(ends) % FIRST == 0:
            gc.collect()
            objects[len(ends)] = len(gc.get_objects())

    device = torch.device("cpu")
    with recipes.meet(config, device=device, timeout_seconds=300) as processes:
        data = recipes.prepare_data(config, data_dir=None, download=False, device=device)
        session = recipes.prepare(config, data, device=device, processes=processes)
        run, _ = recipes.open_run(session, folder / "run", name="long", resume=False, data_dir=None)
        recipes.train_run(session, run, start=Position(), num_workers=workers, on_step=note)
        rank = 0 if processes is None else processes.rank
        # the first step of an epoch includes the test and the checkpoint before it
        times = [b - a for k, (a, b) in enumerate(pairwise(ends), 1) if k % STEPS]
        found = {"memory": memory, "times": times, "objects": objects}
        (folder / f"found-{rank}.json").write_text(json.dumps(found))
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
            "checkpoints": sum(f.stat().st_size for f in run.glob("checkpoints/*/*")),
            "log": (run / "log.jsonl").stat().st_size,
            "events": sum(f.stat().st_size for f in run.glob("tensorboard/*")),
        }
    rows = []
    for rank, found in enumerate(files):
        memory, times = np.array(found["memory"][FIRST:]), found["times"]
        quarter = len(times) // 4
        ratio = statistics.median(times[-quarter:]) / statistics.median(times[quarter : 2 * quarter])
        grows, spread = slope(memory)
        objects = " ".join(str(number) for number in found["objects"].values())
        epochs = steps // STEPS
        folder_size = (
            f"{sizes['checkpoints'] / 2**20:.1f} MiB, {sizes['log'] / epochs:.0f} B, "
            f"{sizes['events'] / epochs / 1024:.1f} KiB"
        )
        rows.append(
            f"| {cell}{f', process {rank}' if len(files) > 1 else ''} | {memory[0] / 1024:.0f} | "
            f"{memory[-1] / 1024:.0f} | {grows:+.0f} ± {spread:.0f} | {objects} | {ratio:.2f} | "
            f"{folder_size if rank == 0 else ''} |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--cell", choices=CELLS)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.folder is not None:
        work(options.cell, options.folder, options.steps)
        return
    rows = []
    for cell in [options.cell] if options.cell else CELLS:
        rows += measured(cell, options.steps)
        print(*rows, sep="\n", flush=True)
    text = f"""# Long runs

`python benchmarks/long_run.py --steps {options.steps}`, torch {torch.__version__}, CPU, one thread a process,
{options.steps // STEPS} epochs of {STEPS} steps, on a machine that was doing other work: a step's time is a
ratio of medians, the last quarter's to the second quarter's. Memory is resident memory, from step {FIRST} on.

| run | MiB at step {FIRST} | at the end | KiB per 1,000 steps | objects every {FIRST} steps | \
time, last / second quarter | checkpoints, log per epoch, TensorBoard per epoch |
| --- | ---: | ---: | ---: | --- | ---: | --- |
""" + "\n".join([*rows, NOTE])
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text + "\n")


if __name__ == "__main__":
    main()
