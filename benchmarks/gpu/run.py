"""The published tables on one GPU: trains and measures until a budget of seconds is used; docs/results.md.

    python benchmarks/gpu/run.py --list                                          # the priorities, in order
    python benchmarks/gpu/run.py --seconds 560 --mosaics FOLDER --output FOLDER  # what is worth most first
    python benchmarks/gpu/run.py --recipes 'cifar10-resnet32-*' --seeds 3 --side-by-side 4 --seconds 3600
    python benchmarks/gpu/run.py --measure-side-by-side --recipes cifar10-resnet32-k4-infopro-contrast
    python benchmarks/gpu/page.py --collect FOLDER                               # rows and page, from them

Every finished job is a line of gpu.jsonl in the output folder. A run that the budget cuts short leaves its
checkpoint there, in files of at most 15 MiB and no folders: given as --from, or as --output once more, the
next call goes on with it, and repeats nothing that benchmarks/results/gpu.jsonl or such a folder has.
SIGTERM ends a call as its budget does; a kill loses what was trained since the last minute.

Needs torch, torchvision, numpy, rich and Pillow; infopro need not be installed. Exit status 2: asked for
what cannot be, and nothing was begun.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2] / "src"))  # where it is not installed

from gpu_clock import STARTED
from gpu_jobs import EXECUTIONS, Job, append, key_of, name_of, read, training_jobs
from gpu_options import parse, refuse
from gpu_packing import pack, unpack
from gpu_priorities import priorities
from gpu_workers import Answer, Settings, Workers

from infopro.errors import InfoProError

RESULTS = Path(__file__).parents[1] / "results" / "gpu.jsonl"
ROWS = "gpu.jsonl"
RESERVE_SECONDS = 20.0  # of the budget, to write checkpoints and copy them
LEAST_SECONDS = 25.0  # left, for a run to be begun
PACK_SECONDS = 60.0
LOOK_SECONDS = 0.5
GRACE_SECONDS = 10.0  # behind the deadline, until a worker that does not stop is ended
DEFAULT_RECIPE = "cifar10-resnet32-k4-infopro-contrast"  # of which several are measured


class Call:
    """One call's work: what is waiting, what is left of the time, where results go."""

    def __init__(self, jobs: Sequence[Job], settings: Settings):
        self.waiting = list(jobs)
        self.settings = settings
        self.finished = self.failed = self.stopped = 0
        self._least = min(LEAST_SECONDS, (settings.deadline - STARTED) / 8)
        self._grace = min(GRACE_SECONDS, (settings.deadline - STARTED) / 8)
        self._asked = False
        self._packed = time.time()

    def ask(self, *details: object) -> None:
        """Stop as if the time were over; a signal handler."""
        self._asked = True

    @property
    def left(self) -> float:
        return 0.0 if self._asked else self.settings.deadline - time.time()

    def run(self, workers: Workers) -> None:
        """Do as many jobs as time allows, in their order."""
        told = False
        while True:
            while (job := self._next(workers)) is not None:
                self._say(f"begins {_title(job)}")
                workers.idle[0].begin(job)
            if not workers.busy:
                return
            if self._asked and not told:
                told = True
                for worker in workers.busy:
                    worker.stop()
            for answer in workers.answers(seconds=LOOK_SECONDS):
                self._take(answer)
            if time.time() - self._packed > PACK_SECONDS:
                self.pack()
            if time.time() > self.settings.deadline + self._grace:
                self.stopped += len(workers.busy)
                return  # a worker that does not stop, compiling perhaps, is ended

    def pack(self) -> int:
        """Make unfinished runs part of the output."""
        self._packed = time.time()
        return pack(self.settings.runs, self.settings.output)

    def _next(self, workers: Workers) -> Job | None:
        """The first job that there is time and room for; what is too long for the rest is passed over."""
        if not workers.idle or any(worker.job and worker.job.alone for worker in workers.busy):
            return None
        for job in list(self.waiting):
            if self.left < (job.estimate if job.alone else self._least):
                self.waiting.remove(job)
                continue
            if job.alone and workers.busy:
                return None  # until it is alone
            self.waiting.remove(job)
            return job
        return None

    def _take(self, answer: Answer) -> None:
        job, row = answer.job, answer.row
        if row is None:
            self.stopped += 1
            self._say(f"stopped {_title(job)}")
            return
        append(self.settings.output / ROWS, row)
        for execution in EXECUTIONS:  # what could not be compiled has the name of an eager one
            name = name_of({**row, "execution": execution})
            shutil.rmtree(self.settings.runs / name, ignore_errors=True)
        self.failed += "error" in row
        self.finished += "error" not in row
        self._say(f"ended {_title(job)}: {_outcome(row)}")

    def _say(self, text: str) -> None:
        print(f"{time.time() - STARTED:7.1f} s  {text}", flush=True)


def measure_side_by_side(job: Job, settings: Settings, numbers: Sequence[int]) -> None:
    """How much several runs on one GPU train together; a row for each number of them."""
    total: dict[int, float] = {}
    for number in numbers:
        same = replace(settings, side_by_side=number)
        with Workers(same, number) as workers:
            for seed, worker in enumerate(workers.idle):
                worker.begin(replace(job, seed=seed))
            rows: list[dict[str, Any] | None] = []
            while workers.busy:
                rows += [answer.row for answer in workers.answers(seconds=LOOK_SECONDS)]
        failed = [row["error"] for row in rows if row and "error" in row]
        if failed or None in rows:
            print(f"{number} side by side: failed, {failed or 'stopped'}", flush=True)
            continue
        found = [row for row in rows if row]
        total[number] = sum(row["images_per_second"] for row in found)
        first = {**found[0], "seed": 0, "changed": {**job.changed, "side_by_side": number}}
        append(settings.output / ROWS, {**first, "images_per_second": total[number]})
        print(f"{number} side by side: {total[number]:.0f} images/s together", flush=True)
    if total:
        best = max(total, key=lambda number: total[number])
        print(f"best: --side-by-side {best}")


def chosen_jobs(options: argparse.Namespace) -> list[Job]:
    """What is asked for, without what is done."""
    how: dict[str, Any] = {"precision": options.precision, "execution": options.execution}
    if options.recipes:
        seeds, changed = range(options.seeds), dict(options.set)
        jobs = list(training_jobs(options.recipes, seeds=seeds, changed=changed, **how))
    else:
        jobs = [j for j in priorities(seeds=options.seeds, **how) if j.group in options.priorities]
    done = {key_of(row) for row in known_rows(options) if not (options.again_failed and "error" in row)}
    return [job for job in jobs if job.key not in done]


def _one_job(options: argparse.Namespace) -> Job:
    """The run of which several are measured side by side."""
    return Job(
        kind="throughput",
        recipe=options.recipes[0] if options.recipes else DEFAULT_RECIPE,
        precision=options.precision,
        execution=options.execution,
        changed=dict(options.set),
    )


def known_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Of every call so far."""
    files = [RESULTS, *(folder / ROWS for folder in (options.output, *options.earlier))]
    return [row for file in files for row in read(file)]


def _title(job: Job) -> str:
    changed = "".join(f", {name} {value}" for name, value in job.changed.items() if name != "command")
    how = "" if job.execution == "eager" else f", {job.execution}"
    return f"{job.kind} {job.recipe}, seed {job.seed}, {job.precision}{how}{changed}"


def _outcome(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"failed, {row['error']}"
    if "test_error" in row:
        plain = f", eager for {row['fallback']}" if "fallback" in row else ""
        return f"{row['test_error']:.2f} % test error, {row['seconds']:.0f} s of training{plain}"
    if "step_seconds" in row:
        gigabytes = "" if row["peak_bytes"] is None else f", {row['peak_bytes'] / 1e9:.2f} GB"
        return f"{row['step_seconds'] * 1e3:.1f} ms{gigabytes}"
    return f"{row['seconds']:.0f} s"


def main() -> None:
    options = parse(__doc__)
    with tempfile.TemporaryDirectory(prefix="infopro-gpu-", ignore_cleanup_errors=True) as scratch:
        runs = options.work or Path(scratch)
        try:
            jobs = chosen_jobs(options)
            refuse(options, jobs)
            if not options.list:
                _lay_out(options, runs)
        except (InfoProError, OSError, ValueError) as error:
            print(f"run.py: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        if options.list:
            print("\n".join(f"{job.group:10}  {job.estimate:4.0f} s  {_title(job)}" for job in jobs))
        else:
            _begin(options, jobs, runs)


def _begin(options: argparse.Namespace, jobs: Sequence[Job], runs: Path) -> None:
    if not jobs:
        print("nothing is left to do; --again-failed repeats what failed")
    reserve = min(RESERVE_SECONDS, options.seconds / 5)
    settings = Settings(
        device=options.device,
        mosaics=options.mosaics,
        data_dir=options.data_dir,
        runs=runs,
        output=options.output.resolve(),
        deadline=STARTED + options.seconds - reserve,
        side_by_side=options.side_by_side,
        commit=options.commit,
        throughput_seconds=options.throughput_seconds,
    )
    if options.measure_side_by_side:
        measure_side_by_side(_one_job(options), settings, options.measure_side_by_side)
    else:
        work(jobs, settings)


def _lay_out(options: argparse.Namespace, runs: Path) -> None:
    """The folders of this call, with what earlier ones left to be gone on with."""
    options.output.mkdir(parents=True, exist_ok=True)
    for folder in (options.output, *options.earlier):
        unpack(folder, runs)
    for row in known_rows(options):
        for execution in EXECUTIONS:  # finished since it was packed, in any way
            shutil.rmtree(runs / name_of({**row, "execution": execution}), ignore_errors=True)


def work(jobs: Sequence[Job], settings: Settings) -> None:
    """Do the jobs, and leave what is unfinished in the output."""
    call = Call(jobs, settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, call.ask)
    with Workers(settings, min(settings.side_by_side, len(jobs))) as workers:
        call.run(workers)
    unfinished = call.pack()
    not_begun = len(jobs) - call.finished - call.failed - call.stopped
    counts = f"{call.finished} finished, {call.failed} failed, {unfinished} to be gone on with"
    print(f"{counts}, {not_begun} not begun; rows in {settings.output / ROWS}")


if __name__ == "__main__":
    main()
