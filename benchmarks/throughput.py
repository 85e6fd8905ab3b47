"""Training throughput of local objectives relative to end to end, measured in one run by turns.

    python benchmarks/throughput.py --batch-size 256 --rounds 7

Every round runs one step of every configuration; the ratio to end to end is taken within the round, so that a
slow moment of the machine falls on all. Writes benchmarks/results/throughput.json and a table beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

import infopro
from infopro.local import LocalModel
from infopro.memory import measure_saved_bytes
from infopro.recipes import choose_device
from infopro.training import describe_environment, make_optimizer

RESULTS = Path(__file__).parent / "results"
CONFIGURATIONS = {
    "end to end": infopro.objectives.EndToEnd(),
    "greedy": infopro.objectives.Greedy(),
    "DGL": infopro.objectives.DGL(),
    "InfoPro's heads, no decoder": infopro.objectives.InfoPro(reconstruction_weight=None),
    "InfoPro (softmax)": infopro.objectives.InfoPro(reconstruction_weight=(6, 1)),
    "InfoPro (contrast)": infopro.objectives.InfoPro(
        task_loss="contrast", reconstruction_weight=(6, 1), task_weight=(0, 2)
    ),
}


def build(objective: infopro.objectives.Objective, num_modules: int, device: torch.device) -> LocalModel:
    torch.manual_seed(0)
    model = infopro.models.create("cifar_resnet32", num_classes=10).to(device)
    return infopro.localize(
        model.to(memory_format=torch.channels_last),
        torch.zeros(2, 3, 32, 32, device=device),
        num_modules=None if objective.num_modules else num_modules,
        balance="depth",
        objective=objective,
        task=infopro.tasks.Classification(num_classes=10),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--num-modules", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = choose_device(options.device)
    images = torch.rand(options.batch_size, 3, 32, 32).to(device, memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (options.batch_size,)).to(device)
    locals_ = {n: build(o, options.num_modules, device) for n, o in CONFIGURATIONS.items()}
    steps = {name: stepper(local, images, labels, device) for name, local in locals_.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(options.rounds + 1):
        for name, step in steps.items():
            taken = step()
            if round_:  # the first round warms up
                seconds[name].append(taken)
    rows = []
    for name, local in locals_.items():
        ratios = [b / a for a, b in zip(seconds[name], seconds["end to end"], strict=True)]
        rows.append(
            {
                "configuration": name,
                "images_per_second": options.batch_size / statistics.median(seconds[name]),
                "relative_throughput": statistics.median(ratios),
                "spread": [min(ratios), max(ratios)],
                "saved_bytes": measure_saved_bytes(local, images, labels).largest,
            }
        )
    write(rows, options, describe_environment(device))


def stepper(local: LocalModel, images: torch.Tensor, labels: torch.Tensor, device: torch.device):
    optimizer = make_optimizer("sgd", local.parameters(), learning_rate=1e-3, weight_decay=1e-4)

    def step() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        local.backward(images, labels)
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return step


def write(rows: list[dict[str, object]], options: argparse.Namespace, environment: dict[str, object]) -> None:
    settings = {name: getattr(options, name) for name in ("batch_size", "num_modules", "rounds")}
    content = {"network": "cifar_resnet32", **settings, "rows": rows, "environment": environment}
    (RESULTS / "throughput.json").write_text(json.dumps(content, indent=1) + "\n")
    lines = [
        "| configuration | throughput, end to end = 1 (min to max) | images/s | saved activations |",
        "|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["spread"]  # type: ignore[misc]
        lines.append(
            f"| {row['configuration']} | {row['relative_throughput']:.2f} ({low:.2f} to {high:.2f}) | "
            f"{row['images_per_second']:.0f} | {int(str(row['saved_bytes'])) / 2**20:.0f} MiB |"
        )
    text = "\n".join(lines)
    (RESULTS / "throughput.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
