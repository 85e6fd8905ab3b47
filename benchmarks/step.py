"""One training step: the memory of every way to save activation memory against its time.

    python benchmarks/step.py                                    # measure, on a quiet machine
    python benchmarks/step.py --predict                          # large networks on fake tensors: memory only
    python benchmarks/step.py --networks resnet32 --methods 'local*' 'end to end' --rounds 7
    python benchmarks/step_page.py                               # the tables and plots, from the CSV file

End to end, gradient accumulation, checkpointing per block, in segments and selectively, offloading,
compilation with a memory budget, deep supervision with the same heads, and local learning alone and with
checkpointing. Memory is measured with one method at a time; then some methods and end to end take turns, one
step each per round, and ratios are taken within the round. Each row is appended to
benchmarks/results/step.csv when it is found; what fails is a row with its reason.
"""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler says nothing of its own

import torch
from step_measure import Footprint, Step, measure, take_turns
from step_methods import METHODS, Method, end_to_end
from step_networks import NETWORKS, PRECISIONS, Setting
from step_results import RESULTS, Row, append, timing

from infopro.memory import format_bytes
from infopro.recipes import choose_device
from infopro.training import describe_environment


def main() -> None:
    options = _parse()
    device = choose_device(options.device)
    environment = _environment(device)
    print(environment, flush=True)
    kind, where = ("predicted", "cuda") if options.predict else ("measured", device.type)
    for name in options.networks or _default_networks(device, predict=options.predict):
        network = NETWORKS[name]
        small = network.small_batch_size if device.type == "cpu" and not options.predict else None
        setting = Setting(
            network, options.batch_size or small or network.batch_size, device, options.precision
        )
        chosen = [m for m in METHODS.values() if any(fnmatchcase(m.name, p) for p in options.methods)]
        found = predict(setting, chosen) if options.predict else compare(setting, chosen, options)
        for method, columns in found:
            columns = {"kind": kind, "device": where, **environment, **columns}
            row = _row(name, setting, method, columns)
            append(row, options.output)
            print(_line(row), flush=True)
        torch._dynamo.reset()


Found = Iterator[tuple[Method, dict[str, Any]]]


def predict(setting: Setting, methods: Sequence[Method]) -> Found:
    """Peaks and operations of steps on fake tensors."""
    for method in methods:
        if method.predict is None:
            continue
        try:
            step = method.predict(setting)
        except Exception as error:  # too few blocks
            yield method, {"error": _reason(error)}
        else:
            found = {"peak_bytes": step.peak, "saved_bytes": max(step.saved), "operations": step.flops}
            yield method, found


def compare(setting: Setting, methods: Sequence[Method], options: argparse.Namespace) -> Found:
    """Group by group: the memory of each method alone, then all take turns with end to end."""
    size = options.together or (4 if setting.device.type == "cpu" else 1)
    for start in range(0, len(methods), size):
        group = methods[start : start + size]
        columns: dict[str, dict[str, Any]] = {method.name: {} for method in group}
        steps: dict[str, Step] = {}
        for method in group:
            print(f"  {method.name} ...", flush=True)
            try:
                steps[method.name], footprint = _prepared(setting, method)
                columns[method.name] |= asdict(footprint)
            except Exception as error:  # out of memory, too few blocks, no compiler
                columns[method.name]["error"] = _reason(error)
        for name, found in _timed(setting, steps, options).items():
            columns[name] |= found
        yield from ((method, columns[method.name]) for method in group)
        steps.clear()
        _free()


def _prepared(setting: Setting, method: Method) -> tuple[Step, Footprint]:
    step = Step(setting, method.build(setting))
    step()  # the optimizer makes its state, compilers compile
    return step, measure(step, method)


def _timed(
    setting: Setting, steps: Mapping[str, Step], options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Time beside a second end-to-end network, so that end to end's own row shows the noise."""
    if not steps:
        return {}
    try:
        turns = {"beside": Step(setting, end_to_end(setting)), **steps}
        seconds = take_turns(turns, rounds=options.rounds, warm_up=options.warm_up)
    except Exception as error:  # their memory together may be too much
        return {name: {"error": f"not timed: {_reason(error)}"} for name in steps}
    return {name: timing(seconds[name], seconds["beside"], images=setting.batch_size) for name in steps}


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def _row(name: str, setting: Setting, method: Method, columns: Mapping[str, Any]) -> Row:
    same: dict[str, Any] = {
        column: getattr(method, column) for column in ("family", "label", "gradient", "num_modules")
    }
    run: dict[str, Any] = {"precision": setting.precision, "batch_size": setting.batch_size}
    return Row(network=name, method=method.name, **same, **run, **columns)


def _line(row: Row) -> str:
    if row.peak_bytes is None:
        return f"{row.network}: {row.method}: {row.error}"
    time = f"{row.time_ratio:.3f} x end to end" if row.time_ratio else row.error or "time not predicted"
    return f"{row.network}: {row.method}: peak {format_bytes(row.peak_bytes)}, {time}"


def _environment(device: torch.device) -> dict[str, Any]:
    found = describe_environment(device)
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    source = found["source"]
    return {
        "commit": source and source["commit"][:12] + (" and changes" if source["modified"] else ""),
        "processor": found["device"],
        "threads": found["threads"],
        "versions": versions,
    }


def _default_networks(device: torch.device, *, predict: bool) -> list[str]:
    everything = device.type == "cuda" or predict
    return [
        n for n, network in NETWORKS.items() if n != "resnet20" and (everything or network.small_batch_size)
    ]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--networks", nargs="+", choices=NETWORKS, help="default: those that the device can hold")
    add("--methods", nargs="+", default=["*"], help="names or patterns, such as 'local*'")
    add("--rounds", type=int, default=5)
    add("--warm-up", type=int, default=1, help="rounds before those that count")
    add("--batch-size", type=int)
    add("--device", default="auto")
    add("--precision", choices=PRECISIONS, default="float32")
    add("--predict", action="store_true", help="nothing is run on real tensors")
    add("--together", type=int, help="methods that take turns with end to end; default: 4, on a GPU 1")
    add("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if (
        options.rounds < 1
        or options.warm_up < 0
        or (options.together or 1) < 1
        or (options.batch_size or 8) < 8
    ):
        parser.error("--rounds and --together take 1 or more, --batch-size 8 or more, --warm-up 0 or more")
    return options


if __name__ == "__main__":
    main()
