"""A few epochs of the whole CIFAR-10, end to end beside greedy beside InfoPro, with the same seed.

    python benchmarks/cifar10_epochs.py --data-dir DATA --epochs 3 --precision bfloat16

DATA holds the published `cifar-10-batches-py`. Too short to compare with the paper's 160 epochs: it shows
that all three learn, and how fast they start. Appends one JSON line per run to
benchmarks/results/cifar10_epochs.jsonl.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from infopro import recipes
from infopro.data import num_batches
from infopro.training import TrainingProgress, describe_environment

RESULTS = Path(__file__).parent / "results" / "cifar10_epochs.jsonl"
RECIPES = [f"cifar10-resnet32-{cell}" for cell in ("end-to-end", "k4-greedy", "k4-infopro-contrast")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs"), help="where the run folders go")
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--warmup-epochs", type=float, default=0.5)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    device = recipes.choose_device(options.device)
    for name in options.recipes:
        config = replace(
            recipes.load(name).config,
            epochs=options.epochs,
            schedule="cosine",  # the paper's rate is one an epoch, and 0 in the last: not for so few
            warmup_epochs=options.warmup_epochs,
            precision=options.precision,
            seed=options.seed,
        )
        data = recipes.prepare_data(config, data_dir=options.data_dir, download=False, device=device)
        session = recipes.prepare(config, data, device=device)
        path = options.output / f"{name}-{options.epochs}-epochs-seed{options.seed}"
        folder, first = recipes.open_run(session, path, name=name, resume=True, data_dir=options.data_dir)
        steps = num_batches(data.train, batch_size=config.batch_size)
        with TrainingProgress(
            Console(), title=name, epochs=config.epochs, steps_per_epoch=steps, first_epoch=first
        ) as bar:
            records = recipes.train_run(
                session, folder, first_epoch=first, on_step=bar.on_step, on_epoch=bar.on_epoch
            )
        row = {"recipe": name, "configuration": asdict(config), "records": [asdict(r) for r in records]}
        with RESULTS.open("a") as stream:
            stream.write(json.dumps({**row, "environment": describe_environment(device)}) + "\n")


if __name__ == "__main__":
    main()
