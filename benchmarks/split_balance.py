"""How even K = 4 modules are, and how long a plan takes.

    python benchmarks/split_balance.py

For each network the share of saved bytes (heads included) of the largest of four modules; 25 % is the ideal.
Then `infopro plan timm/resnet101 --input 3x224x224 --batch-size 128 --num-modules 2 4 8` in a process of its
own: seconds and largest resident memory. Needs infopro[vision] and, for Unet, segmentation-models-pytorch.
Writes benchmarks/results/split_balance.json and .md.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import infopro
from infopro.training import describe_environment

RESULTS = Path(__file__).parent / "results"
PLAN = [
    "plan",
    "timm/resnet101",
    "--input",
    "3x224x224",
    "--batch-size",
    "128",
    "--num-modules",
    "2",
    "4",
    "8",
]
OBJECTIVES = {
    "greedy": infopro.objectives.Greedy(),
    "infopro-softmax": infopro.objectives.InfoPro(),
}


def networks() -> dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]]:
    import segmentation_models_pytorch as smp
    import timm
    import torchvision

    return {
        "ResNet-110, 32 px": (lambda: infopro.models.cifar_resnet(110, 10), (3, 32, 32)),
        "ResNet-101, 224 px": (lambda: timm.create_model("resnet101"), (3, 224, 224)),
        "ViT-S/16, 224 px": (lambda: timm.create_model("vit_small_patch16_224"), (3, 224, 224)),
        "DenseNet-121, 224 px": (lambda: torchvision.models.densenet121(), (3, 224, 224)),
        "DeepLabV3-R101, 512x1024": (
            lambda: torchvision.models.segmentation.deeplabv3_resnet101(
                weights_backbone=None, num_classes=19, aux_loss=True
            ),
            (3, 512, 1024),
        ),
        "Unet ResNet-18, 256 px": (
            lambda: smp.Unet("resnet18", encoder_weights=None, classes=19),
            (3, 256, 256),
        ),
    }


def measure(
    name: str, build: Callable[[], nn.Module], shape: tuple[int, int, int]
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for objective_name, objective in OBJECTIVES.items():
        for balance in ("memory", "time", "depth"):
            started = time.perf_counter()
            planner = infopro.memory.Planner(
                build(), (torch.empty(2, *shape, device="meta"),), objective=objective, balance=balance
            )
            cuts, step = planner.local(4, 8)
            rows.append(
                {
                    "network": name,
                    "objective": objective_name,
                    "balance": balance,
                    "largest_share_saved": max(step.saved) / sum(step.saved),
                    "largest_share_operations": max(step.module_flops) / sum(step.module_flops),
                    "cuts": list(cuts),
                    "seconds": time.perf_counter() - started,
                }
            )
            print(rows[-1], flush=True)
    return rows


def time_plan() -> dict[str, float]:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "infopro", *PLAN], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    resident = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"seconds": seconds, "resident_gib": resident / 2**30}


def table(rows: list[dict[str, object]]) -> str:
    lines = [
        "| network, K = 4 | heads | balance | largest share of saved bytes | of operations | cuts |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cuts = ", ".join(f"`{cut}`" for cut in row["cuts"])  # type: ignore[attr-defined]
        lines.append(
            f"| {row['network']} | {row['objective']} | {row['balance']} | {row['largest_share_saved']:.1%} "
            f"| {row['largest_share_operations']:.1%} | {cuts} |"
        )
    return "\n".join(lines)


def main() -> None:
    plan = time_plan()
    rows = [row for name, (build, shape) in networks().items() for row in measure(name, build, shape)]
    environment = describe_environment(torch.device("cpu"))
    RESULTS.mkdir(exist_ok=True)
    found = {"plan": plan, "rows": rows, "environment": environment}
    (RESULTS / "split_balance.json").write_text(json.dumps(found, indent=1) + "\n")
    summary = (
        f"`infopro {' '.join(PLAN)}`: {plan['seconds']:.0f} s, {plan['resident_gib']:.2f} GiB resident, "
        f"{environment['device']}."
    )
    (RESULTS / "split_balance.md").write_text(f"{table(rows)}\n\n{summary}\n")
    print(summary)


if __name__ == "__main__":
    main()
