"""Kill small runs again and again, resume them each time, and compare them bit for bit with undisturbed ones.

    python benchmarks/kill_and_resume.py --kills 25 --markdown benchmarks/results/kill_and_resume.md

A network with dropout and BatchNorm, two modules, random crops and flips; one cell of runs for each engine,
with and without loader workers, in float32 and bfloat16, see `kill_runs.py`. First each run is stopped by
SIGTERM before every one of its batches, of training and of tests, and goes on from there. Then it is killed:
all processes or one of several, half of the times at a random time, half of them at a random one of the
moments at which a run changes its folder: before or in the middle of a file of tensors, before an fsync,
before a rename; between them come SIGTERMs at random times, to one process or to all and their workers.
Processes that are left by a killed one must end by themselves. Whenever a run comes to its end, weights,
optimizer state and log are compared with the undisturbed run's and a new one begins. Every start is forked
from this process, which has imported all that a run imports and has computed nothing.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from kill_runs import BATCH, CELLS, IMAGES, SIDE, TESTED_AT_ONCE, Cell, Study, write_data
from kill_trial import Tally, Trial

HEAD = """| run | workers | precision | SIGTERM before a batch | at a random time | SIGKILL at a random time \
| of one process | while writing | compared | differ |
| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def row(cell: Cell, tally: Tally) -> str:
    workers = " or ".join(str(number) for number in dict.fromkeys(way.workers for way in cell.ways))
    at_random = tally.kills["at a random time"]
    of_one = tally.kills["at a random time, one of several processes"]
    writing = tally.kills.total() - at_random - of_one
    numbers = (tally.every, tally.stops, at_random, of_one, writing, tally.compared, len(tally.different))
    return f"| {cell.name} | {workers} | {cell.precision} | " + " | ".join(map(str, numbers)) + " |"


def page(tallies: dict[Cell, Tally], options: argparse.Namespace, seconds: float, left: list[str]) -> str:
    found = tallies.values()
    moments = sum((tally.kills for tally in found), start=Counter())
    where = "\n".join(f"| SIGKILL {where} | {number} |" for where, number in sorted(moments.items()))
    rows = "\n".join(row(cell, tally) for cell, tally in tallies.items())
    given = [f"--{name} {getattr(options, name)}" for name in ("kills", "epochs", "seed", "timeout")]
    given += [f"--cells {' '.join(map(str, options.cells))}"] if options.cells else []
    stop = f"{max(tally.slowest_stop for tally in found):.1f} s"
    end = f"{max(tally.slowest_end for tally in found):.1f} s"
    worker = f"{max(tally.slowest_worker for tally in found):.1f} s"
    return f"""# Kill and resume

`python benchmarks/kill_and_resume.py {" ".join(given)}`,
torch {torch.__version__}, CPU, one thread per process, {seconds / 60:.0f} minutes. Four blocks of
convolution, BatchNorm, ReLU and dropout, two modules, objective dgl, {IMAGES} images of
{SIDE} x {SIDE} pixels, {options.epochs} epochs of {IMAGES // BATCH} steps,
tests of {IMAGES // TESTED_AT_ONCE} batches.

A run that came to its end is compared with an undisturbed one: every tensor of weights, heads, optimizer
state and averages, state.json, log. Decoupled runs are never equal: of them the lines of each epoch, once and
in order, and how far the last checkpoint says that it has come.

{HEAD}
{rows}

| in all cells | times |
| --- | ---: |
{where}
| SIGKILL in all | {moments.total()} |
| SIGTERM that ended a start of a run | {sum(t.stops + t.every for t in found)} |
| runs compared | {sum(t.compared for t in found)} |
| tensors, files or logs that differ | {sum(len(t.different) for t in found)} |
| files left in /dev/shm | {len(left)} |

The slowest stop by SIGTERM took {stop}, on a machine with other work. Where one of several processes was
killed, or stopped before it had met the others, those had ended by themselves {end} later at the latest; they
wait for a process for {options.timeout} s. {worker} after the
last start of a cell no process of it ran any more, loader workers of killed ones included.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25, help="in each cell")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=int, default=60, help="seconds that processes wait for a lost one")
    parser.add_argument("--cells", type=int, nargs="*", help="numbers of those of CELLS in kill_runs.py; all")
    parser.add_argument("--jobs", type=int, default=2, help="cells side by side")
    parser.add_argument("--random-only", action="store_true", help="no SIGTERM before every batch")
    parser.add_argument("--markdown", type=Path, help="file to write the tables to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    begun, before = time.monotonic(), shared_memory()
    numbers = options.cells or range(len(CELLS))
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("fork")) as pool:
        found = {CELLS[number]: pool.submit(studied, number, options) for number in numbers}
        broken = [str(error) for future in found.values() if (error := future.exception())]
        tallies = {cell: future.result() for cell, future in found.items() if not future.exception()}
    left = sorted(shared_memory() - before)
    text = page(tallies, options, time.monotonic() - begun, left)
    print(text)
    if options.markdown is not None and not broken:
        options.markdown.write_text(text)
    different = [line for tally in tallies.values() for line in tally.different]
    for line in different:
        print(f"different: {line}", file=sys.stderr)
    for text in broken:
        print(f"broken: {text}", file=sys.stderr)
    if left:
        print(f"left in /dev/shm: {', '.join(left)}", file=sys.stderr)
    return 1 if different or left or broken else 0


def shared_memory() -> set[str]:
    """What torch and Python's multiprocessing keep there."""
    return {name for name in os.listdir("/dev/shm") if name.startswith(("torch_", "sem.", "psm_"))}


def studied(number: int, options: argparse.Namespace) -> Tally:
    cell, chance = CELLS[number], random.Random(1000 * options.seed + number)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        study = Study(Path(folder), cell, options.epochs, options.timeout)
        write_data(study.folder)
        trial = Trial(study, chance)
        if not options.random_only:
            trial.stop_everywhere()
        trial.kill(options.kills)
        trial.end()
    print(row(cell, trial.tally), flush=True)
    return trial.tally


if __name__ == "__main__":
    raise SystemExit(main())
