"""The parts of InfoPro's heads that were made faster, each against the plain form, by turns.

    python benchmarks/decoders.py --rounds 15

The convolutions of enlarged maps, for the shapes that the published decoders meet, against resizing and
keeping the enlarged map; the reconstruction loss of logits against that of their sigmoid. Forward and
backward pass; the ratio is taken within a round. Writes benchmarks/results/decoders.csv and a table of it.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from infopro.heads._resized_convolution import ResizedConv2d
from infopro.memory.tracker import MemoryTracker
from infopro.objectives import reconstruction_loss, reconstruction_loss_of_logits
from infopro.recipes import choose_device
from infopro.training import describe_environment

RESULTS = Path(__file__).parent / "results"
SHAPES = [  # channels in and out, side of the small and the enlarged map, images
    *((32, 12, 16, 32, 64), (64, 12, 16, 32, 64), (64, 12, 8, 32, 64), (256, 12, 4, 32, 64)),
    *((128, 32, 28, 56, 8), (128, 32, 14, 56, 8), (32, 12, 56, 112, 8), (12, 3, 112, 224, 8)),
]


@dataclass(frozen=True)
class Row:
    part: str
    time_ratio: float  # of the faster form to the plain one
    fastest: float
    slowest: float
    bytes_saved: int
    bytes_saved_plain: int
    form: str


def saved_bytes(forward: Callable[[], Tensor], given: Tensor) -> int:
    """What is alive between the passes, but for what comes in and the result."""
    with MemoryTracker() as tracker:
        tracker.label(given, "batch")
        result = forward()
        return tracker.totals.total() - given.nbytes - result.nbytes


def compare(
    part: str,
    given: Tensor,
    fast: Callable[[], Tensor],
    plain: Callable[[], Tensor],
    *,
    rounds: int,
    form: str,
) -> Row:
    """Both forms by turns; the first three rounds warm up."""
    ratios = []
    for _ in range(rounds + 3):
        seconds = [_seconds(forward) for forward in (fast, plain)]
        ratios.append(seconds[0] / seconds[1])
    ratios = ratios[3:]
    saved = saved_bytes(fast, given), saved_bytes(plain, given)
    return Row(part, statistics.median(ratios), min(ratios), max(ratios), *saved, form)


def _seconds(forward: Callable[[], Tensor]) -> float:
    _wait()
    started = time.perf_counter()
    forward().mean().backward()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def convolution(shape: tuple[int, int, int, int, int], device: torch.device, rounds: int) -> Row:
    channels, outputs, size, to, num_images = shape
    net = ResizedConv2d(channels, outputs, size=(size, size), to=(to, to))
    net.to(device, memory_format=torch.channels_last)
    features = torch.rand(num_images, channels, size, size, device=device)
    features = features.to(memory_format=torch.channels_last).requires_grad_()
    name = f"{num_images} images, {channels} channels {size}x{size} to {outputs} channels {to}x{to}"
    form = "on the small map" if net.on_small_map else "resized again in the backward pass"
    forms = (lambda: net(features), lambda: net._resized_first(features))
    return compare(name, features, *forms, rounds=rounds, form=form)


def loss(device: torch.device, rounds: int) -> Row:
    logits = torch.randn(64, 3, 32, 32, device=device, requires_grad=True)
    images = torch.rand(64, 3, 32, 32, device=device)
    forms = (
        lambda: reconstruction_loss_of_logits(logits, images),
        lambda: reconstruction_loss(torch.sigmoid(logits), images),
    )
    return compare("64 images 3x32x32, loss of logits", logits, *forms, rounds=rounds, form="logits")


def table(rows: list[Row], environment: dict[str, object]) -> str:
    lines = [
        "| part | form | time, plain form = 1 (min to max) | keeps besides its input | plain form keeps |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        kept = " | ".join(f"{n / 2**20:.1f} MiB" for n in (row.bytes_saved, row.bytes_saved_plain))
        ratio = f"{row.time_ratio:.2f} ({row.fastest:.2f} to {row.slowest:.2f})"
        lines.append(f"| {row.part} | {row.form} | {ratio} | {kept} |")
    return "\n".join([*lines, "", f"{environment['device']}, {environment['threads']} threads"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = choose_device(options.device)
    rows = [*(convolution(shape, device, options.rounds) for shape in SHAPES), loss(device, options.rounds)]
    environment = describe_environment(device)
    text = table(rows, environment)
    (RESULTS / "decoders.md").write_text(text + "\n")
    with (RESULTS / "decoders.csv").open("w", newline="") as file:
        same = {"device": environment["device"], "torch": torch.__version__}
        writer = csv.DictWriter(file, fieldnames=[*asdict(rows[0]), *same])
        writer.writeheader()
        writer.writerows({**asdict(row), **same} for row in rows)
    print(text)


if __name__ == "__main__":
    main()
