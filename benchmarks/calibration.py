"""The probes of the analysis on features whose mutual information is known: estimate beside truth.

    python benchmarks/calibration.py --seeds 5

Features are made, not learned: Gaussian ones that a class shifts, Gaussian ones that are correlated with a
number which the nuisance probe cuts into bins, images behind a binary symmetric channel. The probes and their
training are those of `infopro analyze`, with its default settings; a seed draws data and weights anew. Writes
benchmarks/results/calibration.csv and a table of it.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from infopro.analysis import ProbeSettings
from infopro.analysis.calibration import calibrate_classes, calibrate_decoder, calibrate_gaussian
from infopro.analysis.known_information import (
    binned_information,
    channel_information,
    class_information,
    gaussian_information,
)
from infopro.training import describe_environment

RESULTS = Path(__file__).parent / "results"
NUM_CLASSES = 4
CORRELATIONS = (0.5, 0.7, 0.9, 0.95)
BINS = (4, 8, 16, 32)  # at correlation 0.9
DISTANCES = (0.5, 1.0, 2.0, 3.0)
FLIPS = (0.01, 0.05, 0.1, 0.2, 0.3)
TRAIN_IMAGES = (10_000, 50_000)  # the default, and what sampling costs


@dataclass(frozen=True)
class Row:
    estimator: str
    case: str
    train_images: int
    truth: float  # nats, of what the estimator sees
    unbinned: float | None  # nats, in closed form, where the estimator cuts into bins
    mean: float
    deviation: float
    seeds: int

    @property
    def ratio(self) -> float:
        return self.mean / self.truth


def row(
    estimator: str,
    case: str,
    train_images: int,
    truth: float,
    found: tuple[float, ...],
    *,
    unbinned: float | None = None,
) -> Row:
    deviation = statistics.stdev(found) if len(found) > 1 else 0.0
    return Row(estimator, case, train_images, truth, unbinned, statistics.mean(found), deviation, len(found))


def gaussian_rows(settings: ProbeSettings, num_train: int) -> Iterator[Row]:
    cases = [
        *((correlation, 8) for correlation in CORRELATIONS),
        *((0.9, bins) for bins in BINS if bins != 8),
    ]
    for correlation, bins in cases:
        found = calibrate_gaussian(
            correlation, settings=replace(settings, nuisance_bins=bins), num_train=num_train
        )
        case = f"correlation {correlation}, {bins} bins"
        truth = binned_information(correlation, bins=bins)
        limit = gaussian_information(correlation)
        yield row("I(h, r), nuisance", case, num_train, truth, found, unbinned=limit)


def class_rows(settings: ProbeSettings, num_train: int) -> Iterator[Row]:
    for distance in DISTANCES:
        found = calibrate_classes(distance, num_classes=NUM_CLASSES, settings=settings, num_train=num_train)
        truth = class_information(distance, num_classes=NUM_CLASSES)
        for capacity, nats in found.items():
            case = f"{NUM_CLASSES} classes at distance {distance}"
            yield row(f"I(h, y), {capacity}", case, num_train, truth, nats)


def decoder_rows(settings: ProbeSettings, num_train: int) -> Iterator[Row]:
    for flip in FLIPS:
        found = calibrate_decoder(flip, settings=settings, num_train=num_train)
        case = f"bits flipped with probability {flip}"
        yield row("I(h, x) per pixel, decoder", case, num_train, channel_information(flip), found)


def table(rows: list[Row], environment: dict[str, object]) -> str:
    lines = [
        "| estimator | features | training images | truth | unbinned | estimate, mean ± std | ÷ truth | n |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for found in rows:
        unbinned = "" if found.unbinned is None else f"{found.unbinned:.4f}"
        lines.append(
            f"| {found.estimator} | {found.case} | {found.train_images:,} | {found.truth:.4f} | {unbinned} "
            f"| {found.mean:.4f} ± {found.deviation:.4f} | {found.ratio:.3f} | {found.seeds} |"
        )
    note = "nats; 10,000 test images, 2,000 for the decoder"
    return "\n".join([*lines, "", f"{note}; {environment['device']}, {environment['threads']} threads"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="the networks are too small for more")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = ProbeSettings(num_seeds=options.seeds)
    rows: list[Row] = []
    for num_train in TRAIN_IMAGES:
        rows += [*gaussian_rows(settings, num_train), *class_rows(settings, num_train)]
    rows += decoder_rows(settings, TRAIN_IMAGES[0])
    environment = describe_environment(torch.device("cpu"))
    text = table(rows, environment)
    (RESULTS / "calibration.md").write_text(text + "\n")
    with (RESULTS / "calibration.csv").open("w", newline="") as file:
        same = {"device": environment["device"], "torch": torch.__version__}
        writer = csv.DictWriter(file, fieldnames=[*asdict(rows[0]), *same])
        writer.writeheader()
        writer.writerows({**asdict(found), **same} for found in rows)
    print(text)


if __name__ == "__main__":
    main()
