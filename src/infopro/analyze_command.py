"""`infopro analyze`: from finished runs to their analyses, written into their folders."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infopro import recipes
from infopro.analysis import (
    Analysis,
    ProbeSettings,
    analyze,
    gradient_table,
    has_analysis,
    information_table,
    refuse_existing_analysis,
    write_analysis,
)
from infopro.analysis.network import OnStep
from infopro.analysis.tensorboard import log_analysis
from infopro.errors import BadConfiguration, BadRun
from infopro.memory import parse_bytes
from infopro.training import RunFolder, describe_environment
from infopro.writable import require_writable

__all__ = ["run"]


def run(options: Any, console: Console) -> None:
    """Analyse each run and write what was found into its folder; nothing is begun unless all can be.

    Raises:
        InfoProError: no such run, one without a checkpoint, one that has an analysis already, or whatever
            does not fit together.
    """
    device = recipes.choose_device(options.device)
    probes = _probes(options)
    paths = [Path(path) for path in options.runs]
    reference = _reference(options, paths)
    _check(paths, options, reference)
    for path in paths:
        if options.resume and has_analysis(path):
            _print(console, f"{path} has an analysis: left as it is")
            continue
        analysis = _analysed(path, reference, options, probes, device, console)
        files = write_analysis(path, analysis, overwrite=options.overwrite)
        scalars = ", and scalars for TensorBoard" if log_analysis(path, analysis) else ""
        _say(console, path, analysis)
        _print(console, f"wrote {', '.join(map(str, files))}{scalars}")


def _probes(options: Any) -> ProbeSettings:
    return ProbeSettings(
        train_images=options.train_images,
        test_images=options.test_images,
        epochs=options.probe_epochs,
        num_seeds=options.probe_seeds,
        memory=parse_bytes(options.memory),
    )


def _reference(options: Any, paths: list[Path]) -> Path | None:
    """The run that others' blocks are compared with."""
    if options.only is not None and "cka" not in options.only:
        if options.compare_with is not None:
            raise BadConfiguration(
                "--compare-with is set, and nothing reads it",
                got=f"--only {' '.join(options.only)}",
                remedy="add cka to --only, or drop --compare-with",
            )
        return None
    if options.compare_with is not None:
        return Path(options.compare_with)
    return paths[0] if len(paths) > 1 else None


def _check(paths: list[Path], options: Any, reference: Path | None) -> None:
    """All that can be known to be wrong before any data are loaded."""
    if options.overwrite and options.resume:
        raise BadConfiguration("--overwrite and --resume contradict each other", remedy="drop one")
    if len({path.resolve() for path in paths}) < len(paths):
        raise BadConfiguration("a run is named twice", got=" ".join(map(str, paths)))
    for path in paths:
        RunFolder.open(path).last_checkpoint()
        if not (options.overwrite or options.resume):
            refuse_existing_analysis(path)
        require_writable(path, remedy="make it writable, or analyse a copy")
        if reference is not None:
            _require_same_images(path, reference)


def _require_same_images(path: Path, reference: Path) -> None:
    """Raise where two runs' networks cannot look at the same images."""
    RunFolder.open(reference).last_checkpoint()
    stored, other = RunFolder.open(path).configuration, RunFolder.open(reference).configuration
    for name in ("data", "image_size"):
        if stored.get(name) != other.get(name):
            raise BadRun(
                f"the blocks of {path} and {reference} cannot be compared: they are of other images",
                got=f"{name} {stored.get(name)!r} and {other.get(name)!r}",
                remedy="analyse them by commands of their own, or leave cka out of --only",
            )


def _analysed(
    path: Path,
    reference: Path | None,
    options: Any,
    probes: ProbeSettings,
    device: torch.device,
    console: Console,
) -> Analysis:
    where = {
        "data_dir": Path(options.data_dir) if options.data_dir else None,
        "download": options.download,
        "device": device,
    }
    loaded = recipes.load_run(path, **where)
    others = {}
    if reference is not None and reference.resolve() != path.resolve():
        others[_name(reference, beside=path)] = recipes.load_run(reference, **where).local.model
    with _progress(console, str(path)) as on_step:
        analysis = analyze(
            loaded.local,
            loaded.local.task,
            loaded.data,
            blocks=options.blocks,
            only=options.only,
            probes=probes,
            name=_name(path),
            others=others,
            device=device,
            num_workers=options.num_workers,
            on_step=on_step,
        )
    return replace(analysis, record=_record(loaded, device))


def _name(path: Path, *, beside: Path | None = None) -> str:
    """A run is called as its folder is, and as the one around it where that tells two apart."""
    full = path.resolve()
    alike = beside is not None and beside.resolve().name == full.name
    return f"{full.parent.name}/{full.name}" if alike else full.name


def _record(loaded: recipes.LoadedRun, device: torch.device) -> dict[str, object]:
    state = loaded.state
    return {
        "command": shlex.join(["infopro", *sys.argv[1:]]),
        "checkpoint": state.name,
        "epoch": state.epoch,
        "step": state.step,
        "objective": loaded.config.objective,
        "cuts": list(loaded.local.split.cuts),
        "environment": describe_environment(device),
    }


@contextmanager
def _progress(console: Console, title: str) -> Iterator[OnStep]:
    """A bar for what is being done, or where nobody watches a line when it begins."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("steps, left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    tasks: dict[str, Any] = {}

    def on_step(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(f"{title}  {what}", total=total)
            if not console.is_terminal:
                _print(console, f"{title}  {what}: {total} steps")
        bar.update(tasks[what], completed=done, total=total)

    with bar:
        yield on_step


def _say(console: Console, path: Path, analysis: Analysis) -> None:
    tables = []
    if analysis.blocks:
        tables.append(information_table(analysis, title=f"{path}: what each block keeps"))
    if analysis.gradients:
        tables.append(gradient_table(analysis, title=f"{path}: each module's gradient and end to end's"))
    notes = [f"note: {note}" for note in analysis.notes]
    for text in (*tables, *notes, f"{analysis.seconds:.0f} s"):
        _print(console, text)


def _print(console: Console, text: str) -> None:
    """As it is: a folder's name may hold brackets."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)
