"""Chooses λ for the study (recipes/study.py) on a held-out part of the training images, never on test images.

    python benchmarks/study_search.py --data-dir data

For each data set and each variant of InfoPro, K = 4 is trained once with every candidate, seed 0, with the
study's epochs (CIFAR-10: half of them). The lowest held-out error of the last epoch wins, the earlier
candidate where two are equal; every K of the study takes the winner. Finished trainings are not repeated.
Writes benchmarks/results/study_search.{csv,md}.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from infopro.recipes import choose_device
from infopro.stopping import StopRequest
from infopro.sweep import Job, free_slots, run_jobs
from infopro.training import RunFolder, describe_environment

RESULTS = Path(__file__).parent / "results"
EPOCHS = {"study-digits": 16, "study-cifar10": 4}  # all of the study's, and half of them
FAMILIES = tuple(EPOCHS)
METHODS = ("infopro-softmax", "infopro-contrast")
# λ1, λ2: constant, and from the first to the last local module as the paper's are
CANDIDATES = (
    ("0.3", "1"),
    ("1", "1"),
    ("3", "1"),
    ("10", "1"),
    ("30", "1"),
    ("100", "1"),
    ("[3,0.3]", "[0.3,1]"),
    ("[10,1]", "[0.3,1]"),
)
HOLD_OUT = 0.2
COLUMNS = ("family", "method", "reconstruction_weight", "task_weight", "held_out_error_percent", "chosen")


def _name(family: str, method: str, candidate: tuple[str, str]) -> str:
    return f"{family}-{method}-{candidate[0]}-{candidate[1]}".translate(str.maketrans("[],", "()_"))


def _job(family: str, method: str, candidate: tuple[str, str], folder: Path, data_dir: str | None) -> Job:
    recipe = f"{family}-k4-{method}"
    name = _name(family, method, candidate)
    arguments = [
        *("train", recipe, f"--reconstruction-weight={candidate[0]}", f"--task-weight={candidate[1]}"),
        *(f"--hold-out={HOLD_OUT}", f"--epochs={EPOCHS[family]}", f"--output={folder / name}", "--resume"),
        *([f"--data-dir={data_dir}"] if data_dir else []),
    ]
    return Job(name=name, arguments=tuple(arguments), output=folder / f"{name}.txt")


def _rows(folder: Path, families: Sequence[str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for family in families:
        for method in METHODS:
            errors = {
                candidate: RunFolder.open(folder / _name(family, method, candidate)).log()[-1].test_error
                for candidate in CANDIDATES
            }
            best = min(errors, key=lambda candidate: errors[candidate])
            rows += [
                dict(zip(COLUMNS, (family, method, *c, round(error, 2), c == best), strict=True))
                for c, error in errors.items()
            ]
    return rows


def _write(rows: list[dict[str, object]]) -> None:
    with (RESULTS / "study_search.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    environment = describe_environment(choose_device("cpu"))
    lines = [
        "# λ of the study",
        "",
        f"Made by `python benchmarks/study_search.py`: K = 4, seed 0, epochs {EPOCHS}, tested on "
        f"{HOLD_OUT:.0%} of the training images, which were held out (CIFAR-10: on 5,000 of those). "
        f"{environment['device']}, torch {environment['versions']['torch']}.",
        "",
        "| data | method | λ1 | λ2 | held-out error (%) | chosen |",
        "|---|---|---|---|---|---|",
        *(
            f"| {' | '.join('yes' if v is True else '' if v is False else str(v) for v in r.values())} |"
            for r in rows
        ),
    ]
    (RESULTS / "study_search.md").write_text("\n".join(lines) + "\n")


def _say(job: Job, status: int, seconds: float) -> None:
    print(f"{job.name}: status {status}, {seconds:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", default=None, help="folder with CIFAR-10")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--folder", type=Path, default=Path("runs/study-search"), help="of the trainings")
    options = parser.parse_args()
    jobs = [
        _job(family, method, candidate, options.folder, options.data_dir)
        for family in options.families
        for method in METHODS
        for candidate in CANDIDATES
    ]
    stop = StopRequest()
    with stop.listening():
        ended = run_jobs(jobs, free_slots(wanted=len(jobs)), stop=stop, on_end=_say)
    failed = [job.name for job in jobs if ended.get(job.name) != 0]
    if failed:
        raise SystemExit(f"not finished: {', '.join(failed)}; see {options.folder}/NAME.txt")
    for row in _rows(options.folder, options.families):
        print(row)
    if set(options.families) == set(FAMILIES):
        _write(_rows(options.folder, FAMILIES))


if __name__ == "__main__":
    main()
