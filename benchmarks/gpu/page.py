"""docs/results.md from benchmarks/results/gpu.jsonl: the paper's tables with ours beside them.

python benchmarks/gpu/page.py
python benchmarks/gpu/page.py --collect FOLDER      # first take over the lines that run.py left there
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "src"))  # where it is not installed

from gpu_jobs import append, key_of, read
from gpu_tables import FAMILIES, MEASURED_GROUPS, Row, error_table, measured_table, number, speed_table, table

from infopro.report.spread import spread

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "gpu.jsonl"
PAGE = ROOT / "docs" / "results.md"
HEADER = """# The published tables, and ours

```sh
python benchmarks/gpu/run.py --seconds 560 --mosaics FOLDER --output OUTPUT
python benchmarks/gpu/page.py --collect OUTPUT
```

The second command makes this page of the lines that the first one leaves; nothing here is written by hand.
Published errors are those of the recipes: Wang, Ni, Song, Yang, Huang, ICLR 2021 (arXiv 2101.10832).

Ours is the test error after the last epoch, mean ± standard deviation (n − 1) of n seeds; the paper's is a
mean of five trials, and it does not say of which epoch. The best epoch is chosen on the test images: it
stands beside and is no result. σ is the paper's standard deviation; **worse** marks a cell that is worse by
more than two. A cell without a run says "not run". The λ of the softmax variant are not published: its
cells use the contrast variant's. Seconds are of training alone, without the test after every epoch.
"""
MEASURED = """## Memory and time of one step

On random images, which do for memory and time only. Ours is the allocator's peak (`max_memory_allocated`)
of a whole step, the optimizer's included, once the convolutions' kernels have been chosen; float32,
products and convolutions in TF32. The paper's is the least memory that it needed, on other hardware. So
compare shares of end to end. × is time as a multiple of end to end's. The plan counts tensors, and no
workspaces of convolutions.
"""
SPEED = "The speed of ResNet-32, K = 4, InfoPro contrast, batch 1024"
SPEED_NOTE = """A step in bfloat16 autocast on random images, channels-last, and what 160 epochs of such
steps come to, tests and data not counted. The target is a whole run in less than 180 s on one H200, alone.
Compiled: a graph for each module and size of batch; graphed: those as CUDA graphs."""
NOT_YET = (
    "**No run yet**: this page waits for a GPU. So far the driver has run on a CPU, on tiny networks, only."
)


def page(rows: Sequence[Row]) -> str:
    """The whole page."""
    parts = [HEADER, _setting(rows)]
    parts += [f"## {title}\n\n{error_table(pattern, rows)}" for title, pattern in FAMILIES.items()]
    parts.append(MEASURED)
    parts += [f"### {title}\n\n{measured_table(group, rows)}" for title, group in MEASURED_GROUPS.items()]
    parts += [f"## {title}\n\n{body or 'Not run.'}" for title, body in _further(rows)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _further(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    yield SPEED, f"{SPEED_NOTE}\n\n{speed_table(rows)}"
    yield "Does the precision change the error?", _precisions(rows)
    yield "Softmax's λ, on held-out training images", _search(rows)
    yield "Other settings than the recipe's", _others(rows)
    yield "Several runs on one GPU", _side_by_side(rows)
    failed = [[_name(row), row["error"]] for row in rows if "error" in row]
    if failed:
        yield "What failed", table(["job", "why"], failed)


def _setting(rows: Sequence[Row]) -> str:
    if not rows:
        return NOT_YET
    used = [
        f"- {what}: {', '.join(sorted({str(value) for value in values}))}"
        for what, values in (
            ("hardware", [row["hardware"] for row in rows if "hardware" in row]),
            ("torch", [row["versions"]["torch"] for row in rows if "versions" in row]),
            ("commits", [str(row["commit"])[:12] for row in rows if row.get("commit")]),
            ("precision of training", [row["precision"] for row in rows if row["kind"] == "train"]),
        )
        if values
    ]
    side_by_side = sorted({str(row["side_by_side"]) for row in rows if row["kind"] == "train"})
    used.append(f"- runs side by side on the GPU, which lengthens their seconds: {', '.join(side_by_side)}")
    executions = sorted({row["execution"] for row in rows if row["kind"] == "train"})
    used.append(f"- steps of training: {', '.join(executions)}")
    differs = (
        "What differs from the published setting: the precision (bfloat16: autocast; tf32: convolutions and"
        " products in TF32; the paper's is float32), the hardware, and what the recipes' notes say"
        " (`infopro list recipes`)."
    )
    return "\n".join([*used, "", differs])


def _precisions(rows: Sequence[Row]) -> str:
    """Recipes that were trained in more than one."""
    trained = [r for r in rows if r["kind"] == "train" and not r["changed"] and "error" not in r]
    found = []
    for recipe in dict.fromkeys(row["recipe"] for row in trained):
        mine = [row for row in trained if row["recipe"] == recipe]
        names = sorted({row["precision"] for row in mine})
        for name in names if len(names) > 1 else ():
            errors = spread([row["test_error"] for row in mine if row["precision"] == name])
            assert errors is not None
            found.append([f"`{recipe}`", name, number(errors), str(errors.count)])
    return table(["recipe", "precision", "last epoch (%)", "n"], found) if found else ""


def _search(rows: Sequence[Row]) -> str:
    found = [r for r in rows if r["kind"] == "train" and "hold_out" in r["changed"] and "error" not in r]
    lines = [
        [f"`{row['recipe']}`", _changes(row), str(row["seed"]), f"{row['test_error']:.2f}"]
        for row in sorted(found, key=lambda row: (row["recipe"], row["test_error"]))
    ]
    return table(["recipe", "changed", "seed", "held-out error (%)"], lines) if lines else ""


def _others(rows: Sequence[Row]) -> str:
    """Runs with fields changed, λ that a search chose for one; tested on test images."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        changed = row["changed"]
        if row["kind"] == "train" and "error" not in row and changed and "hold_out" not in changed:
            key = (row["recipe"], _changes(row), row["precision"])
            found.setdefault(key, []).append(row["test_error"])
    lines = []
    for (recipe, changes, precision), errors in sorted(found.items()):
        mean = spread(errors)
        assert mean is not None
        lines.append([f"`{recipe}`", changes, precision, number(mean), str(mean.count)])
    return table(["recipe", "changed", "precision", "last epoch (%)", "n"], lines) if lines else ""


def _side_by_side(rows: Sequence[Row]) -> str:
    lines = [
        [f"`{row['recipe']}`", row["precision"], str(row["side_by_side"]), f"{row['images_per_second']:.0f}"]
        for row in rows
        if row["kind"] == "throughput" and "error" not in row
    ]
    return table(["recipe", "precision", "runs", "images/s together"], lines) if lines else ""


def _name(row: Row) -> str:
    return f"{row['kind']} `{row['recipe']}`, seed {row['seed']}, {row['precision']} {_changes(row)}".strip()


def _changes(row: Row) -> str:
    return ", ".join(f"{name} {value}" for name, value in row["changed"].items() if name != "command")


def collect(folder: Path, results: Path = RESULTS) -> int:
    """Take over lines that are not there yet, or have failed there; how many."""
    known = {key_of(row) for row in read(results) if "error" not in row}
    new = [row for row in read(folder / "gpu.jsonl") if key_of(row) not in known]
    for row in new:
        append(results, row)
    return len(new)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--collect", type=Path, nargs="+", default=[], help="outputs of run.py")
    options = parser.parse_args()
    for folder in options.collect:
        print(f"{collect(folder)} new lines from {folder}")
    PAGE.write_text(page(read(RESULTS)))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
