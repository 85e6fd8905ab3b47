"""Splits every network of split_networks.py into K modules and checks what a sound split promises.

    python benchmarks/split_coverage.py
    python benchmarks/split_coverage.py --only 'timm/v*' --output somewhere --num-modules 2 --balance memory

Needs, besides infopro[vision]: pip install transformers segmentation-models-pytorch.

Writes split_coverage.csv (a row per network) and split_coverage.md into benchmarks/results; a run of the
whole list also writes the page docs/splitting-coverage.md. One thread, about an hour; `--resume` keeps the
rows that are there.
"""

from __future__ import annotations

import argparse
import fnmatch
import gc
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from split_checks import examine  # beside this file
from split_coverage_page import CHECKS, Row, page, read_rows, totals, write_rows
from split_networks import Network, networks

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "splitting-coverage.md"


class TimeUp(BaseException):
    """Not an Exception: no handler on the way may take it for an error of the network."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeUp(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def row_of(network: Network, *, num_modules: int, balance: str, limit: int) -> Row:
    row = Row(network.suite, network.family, network.name)
    started = time.perf_counter()
    try:
        with time_limit(limit), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for found in examine(network, num_modules, balance):
                reasons = [reason for reason in (row.reason, found.pop("reason", "")) if reason]
                row = replace(row, **found, reason="; ".join(reasons))
    except (Exception, TimeUp) as error:
        reached = next((check for check in CHECKS if not getattr(row, check)), "untouched")
        line = " ".join(f"{type(error).__name__}: {error}".split())
        row = replace(
            row, **{reached: "no"}, reason="; ".join(filter(None, [row.reason, f"{reached}: {line}"]))
        )
    row.seconds = round(time.perf_counter() - started, 1)
    gc.collect()
    return row


def write(rows: Sequence[Row], options: argparse.Namespace, *, whole: bool) -> None:
    """The rows and the page; of a run of the whole list also the page in the documents."""
    write_rows(options.output / "split_coverage.csv", rows)
    text = page(rows, num_modules=options.num_modules, balance=options.balance)
    (options.output / "split_coverage.md").write_text(text)
    if whole:
        PAGE.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="*", help="a pattern of suite/network, as 'timm/v*'")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--num-modules", type=int, default=4)
    parser.add_argument("--balance", default="depth", help="how the cuts are chosen: depth, memory or time")
    parser.add_argument("--limit", type=int, default=300, help="seconds for one network")
    parser.add_argument("--resume", action="store_true", help="keep the rows of an interrupted run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    listed = networks()
    chosen = [n for n in listed if fnmatch.fnmatch(f"{n.suite}/{n.name}", options.only)]
    rows = read_rows(options.output / "split_coverage.csv") if options.resume else []
    known = {(row.suite, row.network) for row in rows}
    for network in chosen:
        if (network.suite, network.name) in known:
            continue
        row = row_of(network, num_modules=options.num_modules, balance=options.balance, limit=options.limit)
        rows.append(row)
        print(f"{len(rows):3}/{len(chosen)} {'passed' if row.passed else 'FAILED'} {row.seconds:6.1f} s "
              f"{row.suite}/{row.network} {row.reason}", flush=True)  # fmt: skip
        write_rows(options.output / "split_coverage.csv", rows)
    whole = options.output == RESULTS and {(row.suite, row.network) for row in rows} == {
        (network.suite, network.name) for network in listed
    }
    write(rows, options, whole=whole)
    print(totals(rows))


if __name__ == "__main__":
    main()
