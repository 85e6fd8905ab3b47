"""The options of `pipeline.py`; nothing here imports torch, see `pipeline_jobs`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NoReturn

__all__ = ["parse"]

RESULTS = Path(__file__).parent / "results"


class OneLine(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parse(description: str | None) -> argparse.Namespace:
    parser = OneLine(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="cifar_resnet32", help="of 32x32 images")
    add("--batch-size", type=int, default=128)
    add("--num-modules", type=int, default=2, help="K, and the number of processes")
    add(
        "--objectives",
        nargs="+",
        default=["greedy", "infopro-softmax"],
        help="the first one's cuts are shared",
    )
    add("--microbatches", type=int, nargs="+", default=[2, 4, 8, 16], help="the best one of these is taken")
    add("--warmup", type=int, default=3, help="steps before the timed ones")
    add("--steps", type=int, default=10, help="timed, of each round")
    add("--rounds", type=int, default=7)
    add("--queue", type=int, default=2, help="batches under way between two modules")
    add("--search-steps", type=int, default=5, help="per pair of cuts; 0: cuts by counted operations")
    add("--probe-steps", type=int, default=4, help="per number of microbatches")
    add("--check-modules", type=int, nargs="+", default=[2, 4], help="compared bit for bit")
    add("--check-steps", type=int, default=3)
    add("--timeout", type=float, default=900.0, help="seconds for one measurement")
    add("--output", type=Path, default=RESULTS, help="folder")
    add("--markdown", action="store_true", help="write the table as pipeline.md, too")
    options = parser.parse_args()
    for problem in problems(options):
        parser.error(problem)
    return options


def problems(options: argparse.Namespace) -> list[str]:
    at_least = {"num_modules": 2, "warmup": 0, "steps": 1, "rounds": 1, "queue": 1, "search_steps": 0}
    at_least |= {"probe_steps": 1, "check_steps": 1, "batch_size": 2}
    found = [
        f"--{name.replace('_', '-')} is {getattr(options, name)}, it must be {least} or more"
        for name, least in at_least.items()
        if getattr(options, name) < least
    ]
    batch, cores = options.batch_size, os.cpu_count() or 1
    if options.num_modules > cores:
        found.append(f"--num-modules {options.num_modules} needs as many cores to be timed, here are {cores}")
    for parts in (*options.microbatches, options.num_modules):
        if parts < 1 or batch % parts or batch // parts < 2:
            found.append(f"a batch of {batch} does not divide into {parts} equal parts of 2 or more images")
    if min(options.check_modules) < 2:
        found.append("--check-modules takes numbers from 2")
    if "end-to-end" in options.objectives:
        found.append("--objectives takes local objectives; the whole network end to end is always measured")
    return found
