"""The study of docs/study.md, in one command, about two hours on two cores.

    python benchmarks/study_search.py --data-dir data     (once: chooses λ, written into recipes/study.py)
    python benchmarks/study.py --data-dir data

Sweeps end to end, greedy, DGL, InfoPro (softmax, contrast) and the control λ1 = 0 over K in {1, 2, 4, 8} and
three seeds, on digits on photos and on 10,000 images of CIFAR-10; analyses the layers of end to end and of
K = 8. Finished runs and analyses are not repeated. Writes docs/study.md, docs/images/study-*.png,
benchmarks/results/study_{runs,blocks,claims}.csv, and a report.html per data set beside the runs.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from study_claims import Run, judge
from study_page import write_page

from infopro import recipes
from infopro.analysis import has_analysis, input_information, input_scores, read_analysis
from infopro.sweep import plan_cells
from infopro.sweep.results import read_results

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FAMILIES = ("study-digits", "study-cifar10")
NUM_SEEDS = 3


def require_chosen_weights() -> None:
    """The recipes hold what the search chose, or nothing is trained."""
    with (RESULTS / "study_search.csv").open() as stream:
        chosen = [row for row in csv.DictReader(stream) if row["chosen"] == "True"]
    for row in chosen:
        config = recipes.load(f"{row['family']}-k4-{row['method']}").config
        wanted = tuple(_weight(row[name]) for name in ("reconstruction_weight", "task_weight"))
        if (config.reconstruction_weight, config.task_weight) != wanted:
            raise SystemExit(
                f"{row['family']}, {row['method']}: the search chose {wanted}; see recipes/study.py"
            )


def _weight(text: str) -> float | tuple[float, ...]:
    numbers = tuple(map(float, text.strip("[]").split(",")))
    return numbers if len(numbers) > 1 else numbers[0]


def sweep(family: str, folder: Path, data_dir: str | None) -> None:
    """All runs of one data set, their analyses and their report."""
    places = [f"--output={folder / family}", *([f"--data-dir={data_dir}"] if data_dir else [])]
    command = [sys.executable, "-m", "infopro", "sweep", family, f"--seeds={NUM_SEEDS}", *places, "--resume"]
    subprocess.run(command, check=True)


def collect(family: str, folder: Path) -> list[Run]:
    """The finished runs with their analyses."""
    cells = plan_cells(family, seeds=range(NUM_SEEDS))
    return [
        Run(
            method=result.cell.method,
            num_modules=result.cell.config.num_modules,
            seed=result.cell.config.seed,
            test_error=result.test_error,
            analysis=read_analysis(result.folder) if has_analysis(result.folder) else None,
        )
        for result in read_results(cells, folder / family / "runs")
    ]


def run_rows(runs: Mapping[str, Sequence[Run]]) -> Iterator[dict[str, object]]:
    """One row a run."""
    for family, members in runs.items():
        for run in members:
            yield {**_key(family, run), "test_error_percent": run.test_error}


def block_rows(runs: Mapping[str, Sequence[Run]]) -> Iterator[dict[str, object]]:
    """One row for each number of each block of each analysed run."""
    for family, members in runs.items():
        for run in members:
            if run.analysis is None:
                continue
            for block in run.analysis.blocks:
                place = {**_key(family, run), "depth": block.depth, "block": block.block}
                numbers = {
                    "linear_error_percent": block.linear_error,
                    "input_score": input_scores(block),
                    "input_information_nats": input_information(block, run.analysis.references),
                    **{f"task_information_nats_{name}": v for name, v in block.task_information.items()},
                    **{f"task_error_percent_{name}": v for name, v in block.task_error.items()},
                    **{f"nuisance_nats_{name}": v for name, v in block.nuisance_information.items()},
                }
                for quantity, values in numbers.items():
                    yield from ({**place, "quantity": quantity, "value": value} for value in values)


def claim_rows(runs: Mapping[str, Sequence[Run]]) -> Iterator[dict[str, object]]:
    """One row a claim, K and data set."""
    for family, members in runs.items():
        for verdict in judge(members):
            yield {
                "family": family,
                "figure": verdict.claim.figure,
                "claim": verdict.claim.text,
                "num_modules": verdict.num_modules,
                "difference": verdict.difference.mean,
                "half_width_95": verdict.difference.half_width,
                "n": verdict.difference.count,
                "unit": verdict.claim.unit,
                "verdict": verdict.word,
            }


def _key(family: str, run: Run) -> dict[str, object]:
    return {"family": family, "method": run.method, "num_modules": run.num_modules, "seed": run.seed}


def write_csv(name: str, rows: Iterator[dict[str, object]]) -> None:
    found = list(rows)
    with (RESULTS / f"{name}.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, found[0])
        writer.writeheader()
        writer.writerows(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", default=None, help="folder with CIFAR-10")
    parser.add_argument("--folder", type=Path, default=Path("sweeps"), help="of the runs")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES, help="only these")
    options = parser.parse_args()
    require_chosen_weights()
    for family in options.families:
        sweep(family, options.folder, options.data_dir)
    runs = {family: collect(family, options.folder) for family in options.families}
    write_csv("study_runs", run_rows(runs))
    write_csv("study_blocks", block_rows(runs))
    write_csv("study_claims", claim_rows(runs))
    write_page(runs, options.folder, ROOT / "docs")


if __name__ == "__main__":
    main()
