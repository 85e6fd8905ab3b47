"""Local modules in processes of their own against back-propagation's pipelines, one thread per process.

    python benchmarks/pipeline.py --markdown        # alone on the machine; see --help for sizes

The same network, batch and parts: all modules in one process, the local pipeline, GPipe, 1F1B and two
zero-bubble schedules of `torch.distributed.pipelining`, data parallel runs, and as many independent runs at
once, which shows what this machine's processes can reach at all. First the cuts are timed, then every way to
train is checked: the local pipeline bit for bit, the others by their update. Rounds take all ways by turns,
each in fresh processes. Writes benchmarks/results/pipeline.csv, with --markdown also pipeline.md.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline_jobs import Job, JobFailed, run
from pipeline_notes import CEILING, END_TO_END, alone_name, closing_notes, pipeline_name
from pipeline_options import parse
from pipeline_table import Variant, markdown, plain_table, row_of, write_csv

SCHEDULES = {"GPipe": 1, "1F1B": 1, "InterleavedZeroBubble": 2, "ZBVZeroBubble": 2}  # stages per process
NEAR = 1.03  # back-propagation keeps the local cuts unless its own make the slowest stage this much faster
MOST_DEVIATION = 1e-3  # of an update, relative to its size


class Progress:
    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"[{time.monotonic() - self._started:6.0f} s] {text}", flush=True)


class Benchmark:
    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.say = Progress()
        self.notes: list[str] = []
        self.base = Job("alone", options.model, options.batch_size, queue=options.queue)
        self.note(f"load average before the start: {os.getloadavg()[0]:.2f}; it should be near 0")
        self.environment = self._environments()

    def run(self, job: Job) -> list[dict[str, Any]]:
        return run(job, timeout=self.options.timeout)

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.say(text)

    def _environments(self) -> dict[str, Any]:
        found = [
            self.run(replace(self.base, kind="environment", objective=objective))[0]
            for objective in self.options.objectives
        ]
        return found[0]

    def cuts(self, objective: str, num_modules: int, *, timed: bool = True) -> dict[str, Any]:
        """The cuts of the smallest slowest stage, and the seconds of each stage."""
        steps = self.options.search_steps if timed else 0
        job = replace(self.base, kind="search", objective=objective, num_modules=num_modules, steps=steps)
        found = self.run(job)[0]
        seconds = " and ".join(f"{s:.3f}" for s in found["seconds"])
        heads = "without heads" if objective == "end-to-end" else f"with {objective} heads"
        text = f"{num_modules} modules {heads}: cut behind {', '.join(found['cuts'])}"
        if seconds:
            text += f"; stages of {seconds} s; balance='time' gives {', '.join(found['start'])}"
        (self.note if timed else self.say)(text)
        return found

    def choose_all_cuts(self) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...], tuple[str, ...]]:
        """Of every local objective; of back-propagation's K stages; of its 2K stages."""
        number = self.options.num_modules
        local = {name: tuple(self.cuts(name, number)["cuts"]) for name in self.options.objectives}
        own, fine = self.cuts("end-to-end", number), self.cuts("end-to-end", 2 * number)
        shared = local[self.options.objectives[0]]
        seconds = {tuple(row["cuts"]): max(row["seconds"]) for row in own["tried"]}
        best = tuple(own["cuts"])
        if not seconds or seconds.get(shared, float("inf")) <= NEAR * seconds[best]:
            best = shared
        same = "the same stages as" if best == shared else "stages of its own, better balanced for it than"
        self.note(f"GPipe and 1F1B run {same} the local pipeline with {self.options.objectives[0]}")
        return local, best, tuple(fine["cuts"])


def variants_of(bench: Benchmark) -> list[Variant]:
    """All ways to train, with one microbatch where there are several."""
    options, number = bench.options, bench.options.num_modules
    local, chain, fine = bench.choose_all_cuts()
    base = replace(bench.base, warmup=options.warmup, steps=options.steps)
    # the first process may be ahead by what is queued at both ends, and by the batch in work
    together = replace(base, processes=number, cooldown=2 * options.queue + 2)
    first = options.objectives[0]
    found = [Variant(END_TO_END, base, alone_name(first))]
    for name, cuts in local.items():
        one, many = replace(base, objective=name, cuts=cuts), replace(together, objective=name, cuts=cuts)
        found.append(Variant(alone_name(name), one, alone_name(name)))
        found.append(Variant(pipeline_name(name), replace(many, kind="pipeline"), alone_name(name)))
        found.append(
            Variant(
                f"local {name}, data parallel", replace(many, kind="replicas", cooldown=0), alone_name(name)
            )
        )
    shared = replace(together, objective=first, cuts=local[first])
    found.append(Variant(CEILING, replace(shared, kind="at once"), alone_name(first)))
    for name, stages in SCHEDULES.items():
        cuts = chain if stages == 1 else fine
        job = replace(together, kind="schedule", objective=first, schedule=name, cuts=cuts, cooldown=0)
        found.append(Variant(name, job, alone_name(first)))
    whole = replace(together, kind="ddp", cooldown=0)
    found.append(Variant("end to end, DistributedDataParallel", whole, alone_name(first)))
    return found


def check_bits(bench: Benchmark, variants: list[Variant]) -> None:
    """Weights and buffers after a few steps: of the pipeline's processes, and of one process."""
    for number in bench.options.check_modules:
        for variant in variants:
            if variant.job.kind == "pipeline":
                _check_bits(bench, variant.job, number)


def _check_bits(bench: Benchmark, job: Job, number: int) -> None:
    cuts = job.cuts
    if number != job.processes:
        cuts = tuple(bench.cuts(job.objective, number, timed=False)["cuts"])
    steps = bench.options.check_steps
    plain = replace(job, cuts=cuts, warmup=0, steps=steps, cooldown=0)
    one = bench.run(replace(plain, kind="alone", processes=1))[0]
    parts = [result["digests"] for result in bench.run(replace(plain, processes=number))]
    merged = {name: digest for part in parts for name, digest in part.items()}
    different = [name for name, digest in one["digests"].items() if merged.get(name) != digest]
    if different or merged.keys() != one["digests"].keys() or not one["moved"]:
        sys.exit(f"the pipeline of {number} processes differs from one process in {different[:3] or 'names'}")
    bench.note(
        f"{number} processes, {job.objective}: all {len(merged)} weights and buffers equal one process's "
        f"bit for bit after {steps} steps ({one['moved']} of them had moved)"
    )


def check_updates(bench: Benchmark, variants: list[Variant]) -> None:
    """One update of the other ways against microbatches that one process accumulates; wrong ones end here."""
    several = bench.options.microbatches[len(bench.options.microbatches) // 2]
    with tempfile.TemporaryDirectory(prefix="infopro-pipeline-") as folder:
        for number, variant in enumerate(variants):
            if variant.job.kind not in ("schedule", "ddp", "replicas"):
                continue
            parts = several if variant.job.kind == "schedule" else variant.job.processes
            file = str(Path(folder) / f"{number}.pt")
            job = replace(variant.job, warmup=0, steps=1, cooldown=0, microbatches=parts, reference=file)
            local = job.cuts if job.kind == "replicas" else ()
            try:
                bench.run(replace(job, kind="accumulated", processes=1, cuts=local))
                results = bench.run(job)
            except JobFailed as error:
                variant.error = str(error)
                bench.note(f"{variant.name} does not run: {error}")
                continue
            deviation = max(result["deviation"] for result in results)
            if not deviation < MOST_DEVIATION:
                variant.error = f"its update is off by {deviation:.1e} of its size"
            compared = " + ".join(str(result["compared"]) for result in results)
            bench.note(
                f"{variant.name}: one update of {compared} parameters differs from accumulating {parts} "
                f"parts by {deviation:.1e} of its size"
            )


def choose_microbatches(bench: Benchmark, variants: list[Variant]) -> None:
    """The fastest number of microbatches of each schedule."""
    for variant in variants:
        if variant.job.kind != "schedule" or variant.error:
            continue
        rates: dict[int, float] = {}
        for number in bench.options.microbatches:
            job = replace(variant.job, microbatches=number, warmup=1, steps=bench.options.probe_steps)
            try:
                rates[number] = row_of(variant, 0, bench.run(job))["images_per_second"]
            except JobFailed as error:
                bench.note(f"{variant.name} with {number} microbatches does not run: {error}")
        if not rates:
            variant.error = "no number of microbatches ran"
            continue
        best = max(rates, key=lambda number: rates[number])
        listed = ", ".join(f"{number}: {rate:.1f}" for number, rate in rates.items())
        bench.note(f"{variant.name}, images/s by number of microbatches: {listed}; {best} is taken")
        variant.job = replace(variant.job, microbatches=best)
        variant.name += f", {best} microbatches of {variant.job.batch_size // best}"
        if SCHEDULES[variant.job.schedule] == 1:
            variant.formula = (variant.job.processes - 1) / (best + variant.job.processes - 1)


def run_rounds(bench: Benchmark, variants: list[Variant], constant: dict[str, Any]) -> None:
    for round_ in range(1, bench.options.rounds + 1):
        for variant in variants:
            if variant.error:
                continue
            try:
                row = row_of(variant, round_, bench.run(variant.job))
            except JobFailed as error:
                variant.error = str(error)
                bench.note(f"{variant.name} failed in round {round_}: {error}")
                continue
            variant.rows.append(row)
            bench.say(
                f"round {round_}/{bench.options.rounds}: {variant.name}: {row['images_per_second']:.1f}/s"
            )
        write_csv(bench.options.output / "pipeline.csv", variants, constant)


def measure(bench: Benchmark) -> list[Variant]:
    variants = variants_of(bench)
    check_bits(bench, variants)
    check_updates(bench, variants)
    choose_microbatches(bench, variants)
    run_rounds(bench, variants, described(bench))
    return variants


def described(bench: Benchmark) -> dict[str, Any]:
    """What every row of the CSV file repeats."""
    options, environment = bench.options, bench.environment
    source = environment["source"] or {}
    return {
        "model": options.model,
        "batch_size": options.batch_size,
        "steps": options.steps,
        "processor": environment["device"],
        "cores": environment["cores"],
        "torch": environment["versions"]["torch"],
        "python": environment["python"],
        "commit": source.get("commit"),
        "modified": source.get("modified"),
        "command": shlex.join(["python", "benchmarks/pipeline.py", *sys.argv[1:]]),
    }


def main() -> None:
    options = parse(__doc__)
    try:
        bench = Benchmark(options)
        variants = measure(bench)
    except JobFailed as error:
        print(f"pipeline.py: {error}", file=sys.stderr)
        sys.exit(2)
    notes = [*closing_notes(options, bench.environment, variants), *bench.notes]
    print("\n".join(["", plain_table(variants, END_TO_END), "", *notes]))
    if options.markdown:
        (options.output / "pipeline.md").write_text(markdown(variants, END_TO_END, notes))


if __name__ == "__main__":
    main()
