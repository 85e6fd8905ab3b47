"""Methods -> the page's data, and the page."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infopro.engines.timeline import StageTimeline, read_timelines
from infopro.errors import BadRun, InfoProError
from infopro.report import MARKER, MethodResult, Reconstruction, ReportData, RunResult, write_report
from infopro.run_report.costs import Costs, costs_of
from infopro.run_report.grouping import Method, common_fields, group_runs
from infopro.run_report.images import shown_images
from infopro.run_report.masks import mask_pictures
from infopro.run_report.reading import StoredRun, read_runs
from infopro.writable import require_writable

__all__ = ["default_output", "report_data", "report_runs"]

_HEAD = 4096  # bytes in which a page of ours says so
_MOST_PATHS = 8  # in the command that makes the page again


def report_runs(paths: Sequence[Path | str], *, output: Path | str, title: str | None = None) -> Path:
    """Write one page about one run or about several compared; no data set and no GPU is needed.

    Runs that differ in the seed only are one method: means with standard deviations. What runs have not got,
    an analysis for instance, leaves its part of the page out. Runs that are still training are shown as far
    as they have come. The same folders give the same bytes.

    Args:
        paths: run folders, or folders of runs.
        output: an `.html` file; replaced if it is such a page.
        title: None: the network's and the data set's names.

    Raises:
        BadRun: no such folder, no run in it, a named run without a finished epoch, a damaged log or analysis,
            runs on different data, an output that is a folder or somebody else's file.
        MissingPackage: a package of the `report` extra is missing.
    """
    target = Path(output)
    _refuse_foreign(target)
    require_writable(target.parent)
    folders = [Path(path) for path in paths]
    runs, notes = read_runs(folders)
    return write_report(
        report_data(runs, notes=notes, title=title, command=_command(folders, target)), target
    )


def default_output(paths: Sequence[Path | str]) -> Path:
    """Where the page of one folder goes.

    Raises:
        BadRun: several folders.
    """
    if len(paths) != 1:
        raise BadRun(
            "a report of several folders needs a name", got=f"{len(paths)} folders", remedy="pass --output"
        )
    return Path(paths[0]) / "report.html"


def report_data(
    runs: Sequence[StoredRun], *, notes: Sequence[str] = (), title: str | None = None, command: str = ""
) -> ReportData:
    """What the page shows of these runs."""
    methods = group_runs(runs)
    costs = costs_of(methods)
    images = shown_images(methods)
    timelines, timelines_of = _timelines(runs)
    results = [_result(method, costs, images.reconstructions.get(method.name, ())) for method in methods]
    networks = list(dict.fromkeys(run.config.model for run in runs))
    model, data = networks[0] if len(networks) == 1 else "several networks", Path(runs[0].config.data).name
    return ReportData(
        title=title
        or (f"{results[0].name}: {model} on {data}" if len(methods) == 1 else f"{model} on {data}"),
        summary=_summary(methods, model, data),
        methods=tuple(results),
        notes=(*_running(methods), *notes, *images.notes, *costs.notes, *_analysis_notes(runs)),
        splits=costs.splits,
        memory=costs.memory,
        memory_note=costs.memory_note,
        originals=images.originals,
        captions=images.captions,
        masks=mask_pictures(methods),
        timelines=timelines,
        timelines_of=timelines_of,
        probes=_agreed(run.analysis.settings for run in runs if run.analysis is not None),
        configuration=common_fields(methods),
        environment=_agreed(map(_environment, runs)),
        command=command,
        commands={run.path.resolve().name: _without_places(run.record.get("command", "")) for run in runs},
    )


def _result(method: Method, costs: Costs, reconstructions: Sequence[Reconstruction]) -> MethodResult:
    runs = [
        RunResult(
            name=name,
            seed=run.config.seed,
            records=run.records,
            epochs=run.config.epochs,
            folder=run.path.resolve().name,
            analysis=run.analysis,
        )
        for name, run in zip(_names(method.runs), method.runs, strict=True)
    ]
    return MethodResult(
        name=method.name,
        description=method.description,
        num_modules=method.config.num_modules,
        family=method.family,
        runs=tuple(runs),
        saved_bytes=costs.saved_bytes.get(method.name),
        reconstructions=tuple(reconstructions),
    )


def _names(runs: Sequence[StoredRun]) -> list[str]:
    """By seed; where one was trained several times, with the folder, then with a number."""
    names: list[str] = []
    seeds = [run.config.seed for run in runs]
    for run in runs:
        name = f"seed {run.config.seed}"
        if seeds.count(run.config.seed) > 1:
            name += f" ({run.path.resolve().name})"
        names.append(name if name not in names else f"{name}, {len(names) + 1}")
    return names


def _summary(methods: Sequence[Method], model: str, data: str) -> str:
    runs = [run for method in methods for run in method.runs]
    record = runs[0].record
    sizes = ""
    if "train_images" in record:
        sizes = f" ({record['train_images']:,} training and {record['test_images']:,} test images)"
    epochs = sorted({run.config.epochs for run in runs})
    times = f"{epochs[0]} epochs" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]} epochs"
    if len(runs) == 1:
        return f"One run: {methods[0].name}. {model} was trained on {data}{sizes} for {times}."
    seeds = sorted({run.config.seed for run in runs})
    seeds_text = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
    ways = "one way" if len(methods) == 1 else f"{len(methods)} ways"
    number = f"{len(runs)} runs in all ({seeds_text})"
    return f"{model} was trained on {data}{sizes} in {ways}, {number}, for {times}."


def _running(methods: Sequence[Method]) -> list[str]:
    """What is not finished, and how the numbers treat it."""
    found = []
    for method in methods:
        unfinished = [run for run in method.runs if run.records[-1].epoch < run.config.epochs]
        alone = len(unfinished) == len(method.runs)
        treated = "its numbers so far are shown" if alone else "it is left out of the means"
        for run in unfinished:
            state = f"{run.records[-1].epoch} of {run.config.epochs} epochs"
            found.append(f"Not finished: {method.name}, seed {run.config.seed}: {state}; {treated}.")
    return found


def _analysis_notes(runs: Sequence[StoredRun]) -> list[str]:
    without = [run.path.name for run in runs if run.analysis is None]
    told = (note for run in runs if run.analysis is not None for note in run.analysis.notes)
    found = [f"Of the probes: {note}" for note in dict.fromkeys(told)]
    if without and len(without) < len(runs):
        found.append(f"Not analysed yet: {', '.join(without)}.")
    return found


def _timelines(runs: Sequence[StoredRun]) -> tuple[tuple[StageTimeline, ...], str]:
    """Of the first run that has them."""
    for run in runs:
        if (run.path / "timeline").is_dir():
            try:
                return tuple(read_timelines(run.path / "timeline")), run.path.name
            except InfoProError:  # cut short; the page has the rest
                continue
    return (), ""


def _environment(run: StoredRun) -> dict[str, Any]:
    environment = dict(run.record.get("environment", {}))
    versions = environment.pop("versions", None) or {}
    shown = {name: value for name, value in environment.items() if name not in ("source", "platform")}
    return shown | versions


def _agreed(mappings: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """One value where all have the same, else all values."""
    found: dict[str, list[str]] = {}
    for mapping in mappings:
        for name, value in mapping.items():
            found.setdefault(name, []).append(str(value))
    return {name: "; ".join(dict.fromkeys(values)) for name, values in found.items()}


def _command(paths: Sequence[Path], target: Path) -> str:
    """What makes the page again, from the folder that holds the runs."""
    base = Path(os.path.commonpath([path.resolve().parent for path in paths]))
    names = [os.path.relpath(path.resolve(), base) for path in paths]
    return shlex.join(
        ["infopro", "report", *(names if len(names) <= _MOST_PATHS else ["."]), "--output", target.name]
    )


def _without_places(command: str) -> str:
    """A command whose absolute paths are cut to their last part: where a run lay says nothing of it."""
    words = []
    for word in shlex.split(command):
        option, equals, value = word.rpartition("=")
        words.append(f"{option}{equals}{Path(value).name}" if value.startswith("/") else word)
    return shlex.join(words)


def _refuse_foreign(target: Path) -> None:
    """An existing file is replaced only if it is a report."""
    if target.is_dir():
        raise BadRun("the report's path is a folder", got=target, remedy="name a file, such as report.html")
    if target.exists():
        with target.open("rb") as stream:
            if MARKER.encode() not in stream.read(_HEAD):
                raise BadRun(
                    "the output exists and is no infopro report", got=target, remedy="pass another --output"
                )
