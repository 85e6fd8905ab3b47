"""Predicted memory of DeepLabV3-R101 on Cityscapes beside what InfoPro's Table 5 prints; no GPU is needed.

    python benchmarks/segmentation_memory.py
    python benchmarks/segmentation_memory.py --output somewhere

Two networks: torchvision's, and one built as the paper's is (mmsegmentation: a stem of three 3x3
convolutions, 512 channels in the head). Writes segmentation_memory.csv and segmentation_memory.md into
benchmarks/results; about five minutes on one core.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import nn
from torchvision.models.segmentation.deeplabv3 import ASPP

import infopro
from infopro.memory import Planner
from infopro.memory.step import StepMemory

RESULTS = Path(__file__).parent / "results"
CLASSES = 19
CUT = "backbone.layer3.12"  # 13 of 23 blocks, as published
CASES = (((512, 1024), 4), ((512, 1024), 6), ((640, 1280), 4))  # crop, images per GPU; the paper has two GPUs
PUBLISHED = {  # crop, images per GPU, manner -> GB per GPU, Table 5
    ((512, 1024), 4, "end to end"): 19.43,
    ((512, 1024), 4, "InfoPro, K = 2"): 12.01,
    ((512, 1024), 6, "InfoPro, K = 2"): 16.62,
    ((640, 1280), 4, "InfoPro, K = 2"): 17.00,
}
PUBLISHED_REFERENCE = PUBLISHED[(*CASES[0], "end to end")]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One manner of training one network at one crop and batch."""

    network: str
    rows: int  # pixels
    columns: int
    images_per_gpu: int
    manner: str
    peak_bytes: int
    share: float  # of end to end at 512x1024 with 4 images
    saved_first: int  # bytes that autograd keeps of the first module
    saved_last: int
    published_gb: float | None
    published_share: float | None


def torchvisions() -> nn.Module:
    return infopro.models.create("torchvision/deeplabv3_resnet101", num_classes=CLASSES)


def as_published() -> nn.Module:
    """torchvision's with the stem and the head that mmsegmentation's deeplabv3_r101-d8 has."""
    model = torchvisions()
    model.backbone["conv1"] = nn.Sequential(
        *_conv_norm_relu(3, 32, stride=2),
        *_conv_norm_relu(32, 32),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),  # its BatchNorm and ReLU are there
    )
    branches = ASPP(2048, [12, 24, 36], out_channels=512)
    branches.project = nn.Sequential(*_conv_norm_relu(5 * 512, 512), nn.Dropout2d(0.1))
    model.classifier = nn.Sequential(branches, nn.Conv2d(512, CLASSES, 1))
    return model


def _conv_norm_relu(channels: int, width: int, *, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "torchvision's": torchvisions,
    "as published": as_published,
}


def steps(planner: Planner, batch_size: int) -> Iterator[tuple[str, StepMemory]]:
    """Every manner of training, and its step."""
    yield "end to end", planner.track(planner.build([]), batch_size)
    yield "end to end, checkpoint 2 segments", planner.segmented(2, batch_size)
    yield "end to end, checkpoint per block", planner.checkpointed(batch_size)
    yield "InfoPro, K = 2", planner.track(planner.build([CUT]), batch_size)
    yield "InfoPro, K = 2, checkpoint per block", planner.track(planner.build([CUT], "blocks"), batch_size)


def rows_of(network: str) -> Iterator[Row]:
    torch.manual_seed(0)
    model = NETWORKS[network]()
    task = infopro.tasks.Segmentation(num_classes=CLASSES)  # the auxiliary FCN head's loss counts 0.4
    reference = 0
    for (height, width), images in CASES:
        example = (torch.empty(2, 3, height, width, device="meta"),)
        planner = Planner(model, example, objective=infopro.objectives.InfoPro(), task=task)
        for manner, step in steps(planner, images):
            reference = reference or step.peak
            published = PUBLISHED.get(((height, width), images, manner))
            yield Row(
                network=network,
                rows=height,
                columns=width,
                images_per_gpu=images,
                manner=manner,
                peak_bytes=step.peak,
                share=round(step.peak / reference, 4),
                saved_first=step.saved[0],
                saved_last=step.saved[-1],
                published_gb=published,
                published_share=None if published is None else round(published / PUBLISHED_REFERENCE, 4),
            )


def table(rows: list[Row]) -> str:
    head = ["network", "crop", "images per GPU", "training", "peak, predicted", "of end to end", "published"]
    lines = [head, ["---"] * len(head), *map(cells, rows)]
    notes = [
        f"torch {torch.__version__.partition('+')[0]}, float32, SGD with momentum, {CLASSES} classes.",
        f"InfoPro: cut behind `{CUT}`, decoder `imagenet`, head `fcn`. Shares: of end to end at 512x1024",
        "with 4 images. Published: Table 5, GB per GPU, and the share of its 19.43.",
    ]
    return "\n".join([*notes, "", *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def cells(row: Row) -> list[str]:
    published = "" if row.published_gb is None else f"{row.published_gb:.2f} GB, {row.published_share:.0%}"
    return [
        row.network,
        f"{row.rows}x{row.columns}",
        str(row.images_per_gpu),
        row.manner,
        f"{row.peak_bytes / 2**30:.2f} GiB",
        f"{row.share:.0%}",
        published,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for network in NETWORKS:
        for row in rows_of(network):
            rows.append(row)
            print(" | ".join(cells(row)), flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    with (options.output / "segmentation_memory.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, rows))
    (options.output / "segmentation_memory.md").write_text(table(rows))


if __name__ == "__main__":
    main()
