"""Does the input feed the training step? This library's readers against torchvision's usual ones, by turns.

    python benchmarks/data.py                      # photographs of its own making, in a temporary folder
    python benchmarks/data.py --data PHOTOS        # JPEGs of your own: a folder of class folders

Usual: an image at a time through Pillow and torchvision's transforms, in a DataLoader. Every reader delivers
normalised float32 batches in channels-last order on the training device. Every round runs each reader once,
so that a slow moment of the machine falls on all; a rate is that of an epoch, the start of its workers
included. Training steps are timed in the same rounds; the step starves where it takes more images per second
than the reader gives. Needs infopro[vision,demo]. Writes benchmarks/results/data.csv and data.md.
"""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from data_readers import Batches, Case, photographs, shortcut_error, small_images, write_photographs

import infopro
from infopro.recipes import choose_device
from infopro.training import describe_environment, make_optimizer
from infopro.training.reading import channels_last

RESULTS = Path(__file__).parent / "results"
PHOTOS = (  # width and height, number of files, images an epoch
    ((500, 375), 64, 320),  # as ImageNet's
    ((4000, 3000), 8, 32),  # a camera's
)
HEADINGS = ("reader", "workers", "images/s", "÷ usual", "÷ step", "the step starves")


@dataclass
class Step:
    name: str
    run: Callable[[], float]
    rates: list[float] = field(default_factory=list)


def rate(read: Callable[[], Batches], device: torch.device) -> float:
    """Images per second of an epoch."""
    started = now(device)
    number = sum(len(images) for images, _ in channels_last(read()))
    return number / (now(device) - started)


def training_step(name: str, network: str, size: int, batch_size: int, device: torch.device) -> Step:
    torch.manual_seed(0)
    images = torch.rand(batch_size, 3, size, size).to(device, memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (batch_size,)).to(device)
    local = infopro.localize(
        infopro.models.create(network, num_classes=10, image_size=size)
        .to(device)
        .to(memory_format=torch.channels_last),
        images[:2],
        num_modules=4,
        balance="depth",
        objective=infopro.objectives.InfoPro(),
        task=infopro.tasks.Classification(num_classes=10),
    )
    optimizer = make_optimizer("sgd", local.parameters(), learning_rate=1e-3, weight_decay=1e-4)

    def run() -> float:
        started = now(device)
        optimizer.zero_grad(set_to_none=True)
        local.backward(images, labels)
        optimizer.step()
        return batch_size / (now(device) - started)

    return Step(name, run)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(cases: list[Case], steps: list[Step], rounds: int, device: torch.device) -> None:
    """Adds the rates of every round."""
    for step in steps:
        step.run()  # warms up
    for round_ in range(1, rounds + 1):
        for step in steps:
            step.rates.append(step.run())
        for case in cases:
            for reader in case.readers:
                reader.rates.append(rate(reader.read, device))
        print(f"round {round_} of {rounds} is done", flush=True)


def table(case: Case, step: Step) -> list[str]:
    usual_rates = {reader.workers: reader.rates for reader in case.readers if reader.name == "usual"}
    lines = [f"{case.title}; {step.name} takes {spread(step.rates, '.1f')} images/s", ""]
    lines += [f"| {' | '.join(HEADINGS)} |", f"|{' --- |' * len(HEADINGS)}"]
    for reader in case.readers:
        against_usual = within_rounds(reader.rates, usual_rates[reader.workers])
        against_step = within_rounds(reader.rates, step.rates)
        starves = "yes" if statistics.median(against_step) < 1 else "no"
        cells = [
            spread(reader.rates, ".0f"),
            spread(against_usual, ".2f"),
            spread(against_step, ".1f"),
            starves,
        ]
        lines.append(f"| {' | '.join([reader.name, str(reader.workers), *cells])} |")
    return [*lines, ""]


def within_rounds(rates: Iterable[float], others: Iterable[float]) -> list[float]:
    return [own / other for own, other in zip(rates, others, strict=True)]


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def write(cases: list[Case], steps: list[Step], environment: dict[str, Any], notes: list[str]) -> None:
    versions = {**environment["versions"], "pillow": metadata.version("pillow")}
    fixed = {name: environment[name] for name in ("device", "cores", "threads", "python")}
    fixed |= {name: versions[name] for name in ("torch", "torchvision", "pillow")}
    fixed |= {**(environment["source"] or {}), "command": shlex.join(["python", *sys.argv])}
    timed = [("training step", step.name, "", step.rates) for step in steps]
    timed += [(case.title, each.name, each.workers, each.rates) for case in cases for each in case.readers]
    with (RESULTS / "data.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["round", "images", "what", "workers", "images_per_second", *fixed])
        for images, what, workers, rates in timed:
            for round_, value in enumerate(rates, start=1):
                writer.writerow([round_, images, what, workers, f"{value:.2f}", *fixed.values()])
    by_name = {step.name: step for step in steps}
    lines = [line for case in cases for line in table(case, by_name[case.step])]
    used = ", ".join(f"{name} {fixed[name]}" for name in ("torch", "torchvision", "pillow"))
    lines += [
        f"Median (min to max) of {len(steps[0].rates)} rounds, ratios within a round; float32, InfoPro with "
        f"K = 4. {fixed['device']}, {fixed['cores']} cores, threads of the step: {fixed['threads']}, {used}."
    ]
    text = "\n".join([*lines, *notes])
    (RESULTS / "data.md").write_text(text + "\n")
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of class folders of JPEGs; made if not given")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = choose_device(options.device)
    notes = [f"Load average before the start: {os.getloadavg()[0]:.2f}; it should be near 0."]
    steps = [
        training_step("ResNet-32", "cifar_resnet32", 32, 128, device),
        training_step("ResNet-50", "torchvision/resnet50", 224, 8, device),
    ]
    with tempfile.TemporaryDirectory() as folder:
        cases = [small_images(device)]
        if options.data is not None:
            cases.append(photographs(options.data.name, options.data, 320, device))
        else:
            for size, files, number in PHOTOS:
                title = f"Photographs of {size[0]} x {size[1]}"
                root = write_photographs(Path(folder, title), size, files)
                cases.append(photographs(title, root, number, device))
            notes.append(
                f"Crops of the largest differ {shortcut_error(root)} from those of a whole decoding."
            )
        measure(cases, steps, options.rounds, device)
    write(cases, steps, describe_environment(device), notes)


if __name__ == "__main__":
    main()
