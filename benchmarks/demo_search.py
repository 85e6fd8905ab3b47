"""Chooses the demonstration's λ1 on a held-out part of the training digits, never on the test digits.

    python benchmarks/demo_search.py --seeds 0 1

Appends one JSON line per training to benchmarks/results/demo_search.jsonl.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from infopro import recipes
from infopro.data import digits_on_photos
from infopro.training import describe_environment

RESULTS = Path(__file__).parent / "results" / "demo_search.jsonl"
GREEDY, CONTROL, INFOPRO = (f"digits-demo-k4-{n}" for n in ("greedy", "no-reconstruction", "infopro-softmax"))


def held_out_error(config: recipes.RunConfig) -> float:
    data = digits_on_photos(seed=config.seed, holdout=True)
    session = recipes.prepare(config, data, device=torch.device("cpu"))
    return recipes.fit(session)[-1].test_error


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--weights", type=float, nargs="+", default=[0.03, 0.1, 0.3, 1.0], help="λ1 to try")
    options = parser.parse_args()
    trials = [(GREEDY, None), (CONTROL, None), *((INFOPRO, weight) for weight in options.weights)]
    environment = describe_environment(torch.device("cpu"))
    for seed in options.seeds:
        for recipe, weight in trials:
            config = replace(recipes.load(recipe).config, reconstruction_weight=weight, seed=seed)
            error = held_out_error(config)
            row = {"recipe": recipe, "reconstruction_weight": weight, "seed": seed, "held_out_error": error}
            print(row, flush=True)
            with RESULTS.open("a") as stream:
                stream.write(json.dumps({**row, "environment": environment}) + "\n")


if __name__ == "__main__":
    main()
