"""The demonstration's four methods over several seeds: is the effect there every time?

    python benchmarks/demo_seeds.py --seeds 0 1 2 3 4     # --seeds alone: the table of the rows there are

Appends one JSON line per training to benchmarks/results/demo_seeds.jsonl and writes the table beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from rich.console import Console

from infopro.data import digits_on_photos
from infopro.demo import METHODS, train_method
from infopro.training import describe_environment

RESULTS = Path(__file__).parent / "results" / "demo_seeds.jsonl"


def table(rows: list[dict[str, object]]) -> str:
    """Test error of the last epoch, %: every seed, mean ± standard deviation; bytes saved in one step."""
    seeds = sorted({int(str(row["seed"])) for row in rows})
    lines = ["| method | " + " | ".join(f"seed {s}" for s in seeds) + " | mean ± std | saved activations |"]
    lines.append("|---" * (len(seeds) + 3) + "|")
    for _, name, _ in METHODS:
        errors = {int(str(r["seed"])): float(str(r["test_error"])) for r in rows if r["method"] == name}
        values = [errors[s] for s in seeds if s in errors]
        spread = f"{statistics.mean(values):.2f} ± {statistics.stdev(values) if len(values) > 1 else 0:.2f}"
        cells = " | ".join(f"{errors[s]:.2f}" if s in errors else "not run" for s in seeds)
        saved = next(int(str(row["saved_bytes"])) for row in rows if row["method"] == name) / 2**20
        lines.append(f"| {name} | {cells} | {spread} (n = {len(values)}) | {saved:.1f} MiB |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    environment = describe_environment(torch.device("cpu"))
    for seed in options.seeds:
        data = digits_on_photos(seed=seed)
        for recipe, name, description in METHODS:
            outcome = train_method(
                recipe, name, description, data=data, seed=seed, console=Console(quiet=True),
                show_reconstructions=False,
            )  # fmt: skip
            row = {
                "method": name,
                "recipe": recipe,
                "seed": seed,
                "test_error": outcome.result.records[-1].test_error,
                "saved_bytes": outcome.result.saved_bytes,
                "seconds": outcome.result.seconds,
                "environment": environment,
            }
            print({key: row[key] for key in ("method", "seed", "test_error")}, flush=True)
            with RESULTS.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    text = table(rows)
    RESULTS.with_suffix(".md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
