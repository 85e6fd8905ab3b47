"""A network that rests on disk, one module at a time in memory, beside the same network held in memory.

    python benchmarks/streaming.py --budget 400MiB --rounds 5

The device is the CPU, whose memory plays the accelerator's; the store is memory-mapped files. Two child
processes train the same vision transformer on random images by turns. In a round, each makes two steps: the
resident one steps its optimizer once at the end, then stage by stage. The ratio of times is taken within a
round. The losses of both processes must be equal. Peaks are the system's, set back after the set-up. Writes
benchmarks/results/streaming.csv and a table of it.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import infopro
from infopro.engines import Engine, OneProcess, Phase, Streaming, Work
from infopro.local import LocalModel
from infopro.memory import format_bytes
from infopro.training import describe_environment, make_optimizer
from infopro.types import Batch

RESULTS = Path(__file__).parent / "results"
SIDE, CLASSES = 32, 10
PROCESSES = ("resident", "streaming")
MANNERS = {  # and the process that does it
    "resident": "resident",
    "resident, stepped stage by stage": "resident",
    "streaming": "streaming",
}


def status(name: str) -> int:
    """Bytes of this process, as the system counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


def build(options: argparse.Namespace) -> LocalModel:
    import timm

    torch.manual_seed(0)
    model = timm.models.VisionTransformer(
        img_size=SIDE,
        patch_size=8,
        embed_dim=options.width,
        depth=options.depth,
        num_heads=options.width // 64,
        num_classes=CLASSES,
    )
    return infopro.localize(
        model,
        torch.rand(2, 3, SIDE, SIDE),
        num_modules=options.num_modules,
        balance="depth",
        objective=infopro.objectives.Greedy(),
        task=infopro.tasks.Classification(num_classes=CLASSES),
    )


def child(options: argparse.Namespace) -> None:
    """Set up, then make one step for each line that comes; the last answer holds the peaks."""
    local = build(options)
    optimizer = make_optimizer("adamw", local.parameters(), learning_rate=1e-4, weight_decay=0.05)
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        engines = engines_of(local, optimizer, options, folder)
        ctypes.CDLL(None).malloc_trim(0)  # the allocator keeps what the set-up has freed
        set_up = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = status("VmRSS")
        say(ready=True)
        for step, line in enumerate(sys.stdin):
            if line.strip() == "end":
                break
            say(**one_step(engines[step % 2], optimizer, options.batch_size, step))
        say(**peaks(local, optimizer, engines[0]), rss_before=before, peak_set_up=set_up)


def engines_of(
    local: LocalModel, optimizer: torch.optim.Optimizer, options: argparse.Namespace, folder: str
) -> list[Engine]:
    """For the first and the second step of a round."""
    if options.child == "resident":
        return [OneProcess(local), OneProcess(local, optimizer=optimizer)]
    engine = Streaming(
        local,
        optimizer,
        example=torch.rand(2, 3, SIDE, SIDE),
        device=torch.device("cpu"),
        budget=options.budget,
        directory=folder,
    )
    return [engine, engine]


def one_step(engine: Engine, optimizer: torch.optim.Optimizer, size: int, step: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    images = torch.rand(size, 3, SIDE, SIDE, generator=generator)
    labels = torch.randint(CLASSES, (size,), generator=generator)
    work = Work(None, Batch(images, labels), Phase(1, True, (size,), (size,)), 0)
    before = traffic(engine)
    started, busy = time.perf_counter(), time.process_time()
    optimizer.zero_grad(set_to_none=True)
    out = engine.backward(work, seed=step)
    if engine.optimizer is None:
        optimizer.step()
    seconds, processor = time.perf_counter() - started, time.process_time() - busy
    moved = [now - then for now, then in zip(traffic(engine), before, strict=True)]
    losses = [float(each["total"]) for each in out.losses]
    return {"seconds": seconds, "processor": processor, "losses": losses, "moved": moved}


def traffic(engine: Engine) -> tuple[int, int]:
    return (engine.bytes_to_device, engine.bytes_from_device) if isinstance(engine, Streaming) else (0, 0)


def peaks(local: LocalModel, optimizer: torch.optim.Optimizer, engine: Engine) -> dict[str, int]:
    weights = sum(parameter.nbytes for parameter in local.parameters())
    moments = sum(v.nbytes for state in optimizer.state.values() for v in state.values())
    constants = {id(tensor) for tensor in local.task.buffers()}  # all modules read them: they never move
    buffers = sum(buffer.nbytes for buffer in local.buffers() if id(buffer) not in constants)
    whole = 2 * weights + moments + buffers
    return {
        "weights": weights + buffers,
        "optimizer": moments,
        "whole": whole,
        "most_resident": engine.most_resident_bytes if isinstance(engine, Streaming) else whole,
        "peak_training": status("VmHWM"),
    }


def say(**values: object) -> None:
    print(json.dumps(values), flush=True)


class Child:
    """One of the two processes."""

    def __init__(self, process: str):
        command = [sys.executable, __file__, "--child", process, *sys.argv[1:]]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a child ended with status {self.process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found


def main() -> None:
    options = parse()
    if options.child:
        child(options)
        return
    children = {}
    for process in PROCESSES:
        children[process] = Child(process)
        children[process].answer()  # set up one after another
    steps: dict[str, list[dict[str, Any]]] = {process: [] for process in PROCESSES}
    for round_ in range(options.rounds + 1):
        for process in 2 * (PROCESSES if round_ % 2 else PROCESSES[::-1]):
            steps[process].append(children[process].ask("step"))
    if any(a["losses"] != b["losses"] for a, b in zip(*steps.values(), strict=True)):
        raise SystemExit("the two processes did not compute the same losses")
    ends = {process: children[process].ask("end") for process in PROCESSES}
    write([row(manner, steps, ends[process], options) for manner, process in MANNERS.items()], options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget", default="400MiB")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--num-modules", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--directory", default=None, help="for the files of the store; the system's if not given"
    )
    parser.add_argument("--child", choices=PROCESSES, help=argparse.SUPPRESS)
    return parser.parse_args()


def row(
    manner: str, steps: dict[str, list[dict[str, Any]]], end: dict[str, int], options: argparse.Namespace
) -> dict[str, Any]:
    """What was found of one manner; the first round, which makes the optimizer's state, is left out."""
    process = MANNERS[manner]
    own, ratios = compared(manner, steps, "seconds")
    _, processor = compared(manner, steps, "processor")
    to_device, from_device = steps[process][-1]["moved"]
    return {
        "manner": manner,
        "budget": options.budget if process == "streaming" else "none",
        **end,
        "to_device_per_step": to_device,
        "from_device_per_step": from_device,
        "seconds_per_step": statistics.median(own),
        "relative_time": statistics.median(ratios),
        "relative_time_min": min(ratios),
        "relative_time_max": max(ratios),
        "relative_processor_time": statistics.median(processor),
        "rounds": len(own),
        "losses_equal": True,
    }


def compared(
    manner: str, steps: dict[str, list[dict[str, Any]]], what: str
) -> tuple[list[float], list[float]]:
    """One number of each round, and its ratio to the resident process's second step of the round."""
    found = {process: [step[what] for step in steps[process][2:]] for process in PROCESSES}
    staged = found["resident"][1::2]
    if manner == "streaming":
        pairs = zip(found[manner][::2], found[manner][1::2], strict=True)
        own = [(a + b) / 2 for a, b in pairs]
    else:
        own = found["resident"][::2] if manner == "resident" else staged
    return own, [a / b for a, b in zip(own, staged, strict=True)]


def write(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    with (RESULTS / "streaming.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    text = "\n".join([*table(rows), "", *rule(rows[-1]), "", setting(options, rows[-1])])
    (RESULTS / "streaming.md").write_text(text + "\n")
    print(text)


def table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| | held at once, at most | peak RSS, training | set-up | s/step | time, stage by stage = 1 "
        "| processor time |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in rows:
        low, high = each["relative_time_min"], each["relative_time_max"]
        lines.append(
            f"| {each['manner']} | {format_bytes(each['most_resident'])} of {format_bytes(each['whole'])} | "
            f"{format_bytes(each['peak_training'])} | {format_bytes(each['peak_set_up'])} | "
            f"{each['seconds_per_step']:.2f} | {each['relative_time']:.2f} ({low:.2f} to {high:.2f}) | "
            f"{each['relative_processor_time']:.2f} |"
        )
    return lines


def rule(streamed: dict[str, Any]) -> list[str]:
    """The counted traffic beside what visiting every weight twice, and thrice, would move."""
    weights, moments, there = (streamed[name] for name in ("weights", "optimizer", "to_device_per_step"))
    back = format_bytes(weights + moments)
    lines = [
        "| bytes per step | visits of a weight | to the device | back |",
        "|---|---|---|---|",
        f"| streaming, counted | {(there - moments) / weights:g} | {format_bytes(there)} | "
        f"{format_bytes(streamed['from_device_per_step'])} |",
    ]
    for visits, name in ((2, "end to end: forward, backward"), (3, "end to end: forward, again, backward")):
        lines.append(f"| {name}, by rule | {visits} | {format_bytes(visits * weights + moments)} | {back} |")
    return lines


def setting(options: argparse.Namespace, streamed: dict[str, Any]) -> str:
    found = describe_environment(torch.device("cpu"))
    return (
        f"Vision transformer of width {options.width} and depth {options.depth}, {SIDE}x{SIDE} images, batch "
        f"{options.batch_size}, linear heads, AdamW, K = {options.num_modules}, budget {options.budget}; "
        f"{options.rounds} rounds by turns, medians; losses of both processes equal in every step. Both "
        f"resident manners share one process and its peaks. With all modules at rest, before the first step, "
        f"the streaming process has {format_bytes(streamed['rss_before'])} (Python, packages). "
        f"{found['device']}, {found['threads']} threads, torch {found['versions']['torch']}; load average at "
        f"the end {os.getloadavg()[0]:.1f} on {found['cores']} cores: times count only where it is about 2."
    )


if __name__ == "__main__":
    main()
