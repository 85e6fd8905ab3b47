"""What run.py is told on its command line, and what of that cannot be."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from gpu_jobs import EXECUTIONS, PRECISIONS, Job
from gpu_mosaics import LABELS, TEST, TRAINING
from gpu_priorities import GROUPS

from infopro import recipes
from infopro.errors import BadConfiguration, BadData, UnknownName
from infopro.recipes import RunConfig
from infopro.recipes._config import check

__all__ = ["parse", "refuse"]


def parse(description: str | None) -> argparse.Namespace:
    """The words of this process's command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seconds", type=float, default=560.0, help="the budget of this call")
    add("--priorities", nargs="+", choices=GROUPS, default=list(GROUPS), help="only these groups of them")
    add("--recipes", nargs="+", help="names or patterns to train, in place of the priorities")
    add("--set", nargs="+", type=_setting, default=[], metavar="NAME=JSON", help="change fields of --recipes")
    add("--seeds", type=int, default=3)
    add("--precision", choices=PRECISIONS, default="bfloat16", help="of training")
    add("--execution", choices=EXECUTIONS, default="eager", help="of training; eager where another one fails")
    add("--side-by-side", type=int, default=1, help="runs at a time; measurements are always alone")
    add("--measure-side-by-side", type=int, nargs="*", help="measure these numbers of runs; default 1 2 4")
    add("--throughput-seconds", type=float, default=20.0, help="of each such measurement")
    add("--output", type=Path, default=Path("runs/gpu"), help="rows and unfinished runs")
    add("--from", type=Path, nargs="+", default=[], dest="earlier", help="outputs of earlier calls")
    add("--work", type=Path, help="folder of the runs under way; default: a temporary one")
    add("--mosaics", type=Path, help="folder of CIFAR-10 as WebP mosaics and labels.npz")
    add("--data-dir", type=Path, help="folder of data sets, as `infopro train` has it")
    add("--device", default="auto")
    add("--commit", help="recorded where the source tree is no git checkout")
    add("--again-failed", action="store_true", help="repeat what failed")
    add("--list", action="store_true", help="print what would be done, in order")
    options = parser.parse_args()
    if options.measure_side_by_side == []:
        options.measure_side_by_side = [1, 2, 4]
    numbers = [options.side_by_side, options.seeds, *(options.measure_side_by_side or ())]
    if min(numbers) < 1 or options.seconds <= 0 or options.throughput_seconds <= 0:
        parser.error("numbers of runs and seeds are 1 or more, seconds more than 0")
    return options


def refuse(options: argparse.Namespace, jobs: Sequence[Job]) -> None:
    """Raises an InfoProError for what would make every job fail."""
    recipes.choose_device(options.device)
    for name, _ in options.set:
        if name not in (known := [field.name for field in fields(RunConfig)]):
            raise UnknownName("field of a recipe", name, known)
    for folder in options.earlier:
        if not folder.is_dir():
            raise BadConfiguration("--from is no folder", got=folder, remedy="give the output of a call")
    for name in (LABELS, *TRAINING, TEST) if options.mosaics else ():
        if not (options.mosaics / name).is_file():
            remedy = f"give --mosaics a folder of {LABELS}, {TRAINING[0]} to {TRAINING[-1]} and {TEST}"
            raise BadData("a mosaic is missing", got=options.mosaics / name, remedy=remedy)
    for job in jobs if options.set else ():
        check(job.config())


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=JSON, such as epochs=2")
    try:
        return name, json.loads(value)
    except ValueError as error:
        reason = f"the value of {text!r} is not JSON: texts need quotes, as in 'balance=\"memory\"'"
        raise argparse.ArgumentTypeError(reason) from error
