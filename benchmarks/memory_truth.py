"""Predicted against measured bytes of one training step.

    python benchmarks/memory_truth.py               # here; on a GPU at full size, with the allocator's peak
    python benchmarks/memory_truth.py --device cuda

Saved bytes are compared exactly. The peak of a CPU step is that of its tensors, of a CUDA step
`torch.cuda.max_memory_allocated`, which holds convolutions' workspaces, too. Appends to
benchmarks/results/memory_truth.csv.
"""

from __future__ import annotations

import argparse
import csv
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import torchvision
from torch import nn

import infopro
from infopro.memory import Planner, measure
from infopro.memory.output_task import OutputTask
from infopro.training import describe_environment

RESULTS = Path(__file__).parent / "results" / "memory_truth.csv"


@dataclass(frozen=True)
class Case:
    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    batch: int  # on a GPU
    small: tuple[int, int, int]  # on a CPU, with four images
    task: infopro.tasks.Task


def deeplab() -> nn.Module:
    return torchvision.models.segmentation.deeplabv3_resnet101(
        weights_backbone=None, num_classes=19, aux_loss=True
    )


THOUSAND = infopro.tasks.Classification(num_classes=1000)
CASES = (
    Case(
        "resnet110",
        lambda: infopro.models.cifar_resnet(110, 10),
        (3, 32, 32),
        1024,
        (3, 32, 32),
        infopro.tasks.Classification(num_classes=10),
    ),
    Case("resnet101", lambda: timm.create_model("resnet101"), (3, 224, 224), 128, (3, 64, 64), THOUSAND),
    Case(
        "vit_small",
        lambda: timm.create_model("vit_small_patch16_224"),
        (3, 224, 224),
        128,
        (3, 224, 224),
        THOUSAND,
    ),
    Case("deeplabv3_resnet101", deeplab, (3, 512, 1024), 4, (3, 64, 64), OutputTask(19)),
)


def compare(
    case: Case, num_modules: int, objective: infopro.objectives.Objective, device: str
) -> dict[str, object]:
    cuda = device == "cuda"
    shape, batch = (case.shape, case.batch) if cuda else (case.small, 4)
    torch.manual_seed(0)
    model = case.build()
    planner = Planner(
        model, (torch.empty(2, *shape, device="meta"),), objective=objective, task=case.task, on_cuda=cuda
    )
    fake = planner.build(planner.cuts(num_modules) if num_modules > 1 else [])
    predicted = planner.track(fake, batch, stepping=False)
    model.to(device)
    images, labels = torch.rand(batch, *shape, device=device), torch.arange(batch, device=device) % 10
    where = {"cuts": fake.split.cuts} if num_modules > 1 else {"num_modules": 1}
    chosen = objective if num_modules > 1 else infopro.objectives.EndToEnd()
    local = infopro.localize(model, images[:2], objective=chosen, task=case.task, **where)
    measured = measure(local, images, labels)
    row = {
        "network": case.name,
        "input": "x".join(map(str, shape)),
        "batch": batch,
        "num_modules": num_modules,
        "objective": chosen.name,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "saved_predicted": sum(predicted.saved),
        "saved_measured": sum(measured.saved.per_module),
        "largest_predicted": max(predicted.saved),
        "largest_measured": measured.saved.largest,
        "peak_predicted": predicted.peak,
        "peak_measured": measured.peak,
        "peak_error": f"{predicted.peak / measured.peak - 1:+.3%}",
        "torch": torch.__version__,
    }
    del local, planner, fake
    gc.collect()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu"
    )
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = False
    print(describe_environment(torch.device(options.device)))
    for case in CASES:
        for num_modules in (1, 2, 4):
            row = compare(case, num_modules, infopro.objectives.InfoPro(), options.device)
            print(row, flush=True)
            new = not RESULTS.exists()
            with RESULTS.open("a", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(row))
                if new:
                    writer.writeheader()
                writer.writerow(row)


if __name__ == "__main__":
    main()
