"""Splits every segmentation network of split_networks.py into 2, 3 and 4 modules, and checks each split.

    python benchmarks/segmentation_splits.py
    python benchmarks/segmentation_splits.py --only '*/Unet*' --num-modules 2 --output somewhere

Needs infopro[vision,seg]. The checks are those of split_coverage.py. Writes segmentation_splits.csv and
segmentation_splits.md into benchmarks/results. One thread, a quarter of an hour.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import torch
from split_coverage import row_of  # beside this file
from split_coverage_page import CHECKS, Row
from split_networks import segmentation_networks

RESULTS = Path(__file__).parent / "results"
HEAD = ("network", "K", "cuts", "cross each cut, besides the main tensor", "checks", "no loss reaches")


def write(rows: Sequence[tuple[int, Row]], output: Path, balance: str) -> None:
    """The rows as they are, and the table that a reader wants."""
    with (output / "segmentation_splits.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["num_modules", *(f.name for f in fields(Row))], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"num_modules": k, **asdict(row)} for k, row in rows)
    lines = [f'`balance="{balance}"`, torch {torch.__version__.partition("+")[0]}.', ""]
    table = [HEAD, ["---"] * len(HEAD), *(cells(k, row) for k, row in rows)]
    lines += [f"| {' | '.join(each)} |" for each in table]
    (output / "segmentation_splits.md").write_text("\n".join(lines) + "\n")


def cells(num_modules: int, row: Row) -> list[str]:
    passed = sum(getattr(row, check) in ("yes", "live") for check in CHECKS)
    verdict = f"{passed} of {len(CHECKS)}" if row.passed else row.reason.replace("|", "/")
    untrained = row.untrained.split()
    missed = f"{len(untrained)} parameter tensors from `{untrained[0]}` on" if untrained else ""
    cuts = ", ".join(f"`{cut}`" for cut in row.cuts.split())
    return [row.network, str(num_modules), cuts, ", ".join(row.carried.split()), verdict, missed]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="*", help="a pattern of suite/network")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--num-modules", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--balance", default="memory", help="how the cuts are chosen: depth, memory or time")
    parser.add_argument("--limit", type=int, default=300, help="seconds for one split")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[int, Row]] = []
    for network in segmentation_networks():
        if not fnmatch.fnmatch(f"{network.suite}/{network.name}", options.only):
            continue
        for num_modules in options.num_modules:
            row = row_of(network, num_modules=num_modules, balance=options.balance, limit=options.limit)
            rows.append((num_modules, row))
            print(f"{'passed' if row.passed else 'FAILED'} {row.seconds:6.1f} s {row.network} "
                  f"K = {num_modules} {row.reason}", flush=True)  # fmt: skip
            write(rows, options.output, options.balance)


if __name__ == "__main__":
    main()
