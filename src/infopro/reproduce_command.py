"""`infopro reproduce`: a run trained anew, and compared with the first one."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from infopro import recipes, train_command
from infopro.determinism import deterministic
from infopro.errors import BadConfiguration, BadRun
from infopro.options import configuration, parse
from infopro.reproduction import (
    Comparison,
    Repetition,
    compare_runs,
    differences,
    repetition_of,
    unrecorded,
)
from infopro.stopping import StopRequest
from infopro.training import describe_environment

__all__ = ["run"]

LAUNCHER = ("torch.distributed.run", "--standalone")  # a module, and what it is told: torchrun
_LOOK_SECONDS = 0.2


def run(options: Any, console: Console) -> int:
    """0 if both runs are the same, bit for bit; 1 if not; a stopped training's own status.

    Raises:
        InfoProError: a run that cannot be repeated; whatever training raises.
    """
    path = Path(options.run)
    repetition = repetition_of(path)
    _refuse_torchrun()
    output = _output(path, options.output)
    recipes.refuse_existing(output, resume=options.resume)
    device = recipes.choose_device(options.device or _device_of(repetition))
    arguments = _arguments(options, repetition, output, device)
    with _threads(repetition.record), deterministic(repetition.config.deterministic):
        _say_differences(console, repetition, _record_here(options, repetition, device))
        if repetition.processes is None:
            status = _train_here(arguments, repetition, console)
        else:
            status = _train_together(arguments, repetition, device)
    if status:
        return status
    found = compare_runs(path, output)
    _say(console, _result(found, path, output))
    return 0 if found.identical else 1


def _output(path: Path, given: str | None) -> Path:
    if given is None:
        whole = path.resolve()  # of ".", too
        return (path if path.name == whole.name else whole).with_name(f"{whole.name}-reproduced")
    if Path(given).resolve() == path.resolve():
        raise BadConfiguration(
            "a run is not compared with itself", got=f"-o {given}", remedy="name a folder for the new one"
        )
    return Path(given)


def _device_of(repetition: Repetition) -> str:
    """Older runs have not recorded it."""
    recorded = str(repetition.record.get("device", "auto"))
    return "auto" if recorded == "cuda" and not torch.cuda.is_available() else recorded


def _arguments(options: Any, repetition: Repetition, output: Path, device: torch.device) -> list[str]:
    """Of `infopro train`: from the recipe that the run is named after, if that leads to the same."""
    data_dir = options.data_dir or repetition.record.get("data_dir")
    places = [f"--output={output}", f"--device={device}"]
    places += [f"--data-dir={data_dir}"] if data_dir else []
    places += [f"--{name}" for name in ("download", "resume") if getattr(options, name)]
    for recipe in (repetition.recipe, None):
        base = recipes.load(recipe).config if recipe else recipes.RunConfig()
        named = [recipe] if recipe else []
        arguments = ["train", *named, *repetition.options(base), *places]
        parsed, _ = parse(arguments)
        if configuration(parsed.train) == repetition.config:
            return arguments
    raise BadRun("the run's configuration cannot be given as options", got=options.run)


@contextmanager
def _threads(record: dict[str, Any]) -> Iterator[None]:
    """As many as the run had: sums are rounded by how they are shared out."""
    before = torch.get_num_threads()
    wanted = int((record.get("environment") or {}).get("threads") or before)
    if wanted != before:
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        if wanted != before:
            torch.set_num_threads(before)


def _record_here(options: Any, repetition: Repetition, device: torch.device) -> dict[str, Any]:
    """What this machine's run.json would say."""
    data_dir = options.data_dir or repetition.record.get("data_dir")
    data = recipes.prepare_data(
        repetition.config,
        data_dir=Path(data_dir) if data_dir else None,
        download=options.download,
        device=torch.device("cpu"),
    )
    first = repetition.config.initial_weights
    return {
        "initial_weights": None if first is None else asdict(recipes.find_initial_weights(first)),
        "source_hash": recipes.source_hash(),
        "data_hash": recipes.data_hash(data),
        "train_images": len(data.train),
        "test_images": len(data.test),
        "environment": describe_environment(device),
    }


def _say_differences(console: Console, repetition: Repetition, here: dict[str, Any]) -> None:
    there = repetition.record
    found, missing = differences(there, here), unrecorded(there, here)
    for line in found or ["the machine, the versions and the data are those of the run"]:
        _say(console, f"different: {line}" if found else line)
    if missing:
        _say(console, f"the run did not record: {', '.join(missing)}")
    if there.get("device") == "cuda" and not repetition.config.deterministic:
        _say(console, "the run was on a GPU without --deterministic: its bits may not come again")


def _train_here(arguments: list[str], repetition: Repetition, console: Console) -> int:
    options, _ = parse(arguments)
    return train_command.run(options.train, repetition.config, console)


def _train_together(arguments: list[str], repetition: Repetition, device: torch.device) -> int:
    """The same number of processes, under torchrun."""
    number = repetition.processes or 1
    # each process takes the GPU of its own number
    together = [f"--device={device.type}" if a.startswith("--device=") else a for a in arguments]
    if device.type == "cuda" and torch.cuda.device_count() < number:
        raise BadConfiguration(
            f"the run was trained by {number} processes on a GPU each",
            got=f"{torch.cuda.device_count()} GPUs here",
            remedy=f"on as many: torchrun --nproc-per-node={number} -m infopro {shlex.join(together)}",
        )
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", *LAUNCHER, f"--nproc-per-node={number}", "-m", "infopro", *together]
    stop = StopRequest()
    with (
        stop.listening(),
        # a session of its own: a terminal's Ctrl-C reaches it once, from here
        subprocess.Popen(command, env=os.environ | threads, start_new_session=True) as process,
    ):
        told = False
        while process.poll() is None:
            if stop() and not told:
                process.terminate()
                told = True
            time.sleep(_LOOK_SECONDS)
    if told:
        return stop.exit_status
    if process.returncode:
        raise BadRun("the run could not be trained anew", got=f"exit status {process.returncode}; see above")
    return 0


def _refuse_torchrun() -> None:
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise BadConfiguration(
            "reproduce starts the processes itself",
            got=f"{os.environ['WORLD_SIZE']} of them",
            remedy="start it without torchrun",
        )


def _result(found: Comparison, there: Path, here: Path) -> str:
    logs = f"{found.lines} lines of the logs"
    state = (
        "no checkpoint of a whole epoch in both"
        if found.checkpoint is None
        else f"{found.tensors} tensors of {found.checkpoint} (weights {found.weights})"
    )
    if found.identical:
        return f"identical, bit for bit: {logs}, {state}"
    return "\n".join([f"not the same, {there} there and {here} here: {logs}, {state}", *found.differences])


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)
