"""`infopro sweep`: methods x K x seeds in one command, ending in one report."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from infopro import models, recipes
from infopro.analysis import has_analysis
from infopro.run_report import report_runs
from infopro.stopping import StopRequest
from infopro.sweep import END_TO_END, Cell, Job, Slot, free_slots, plan_cells, run_jobs
from infopro.sweep.progress import SweepProgress
from infopro.sweep.results import is_finished, read_results, summary_table, write_results
from infopro.sweep_options import VARIED
from infopro.training import RunFolder, locked, refuse_locked
from infopro.writable import require_writable

__all__ = ["run"]

_FAILED = 1


def run(options: Any, console: Console) -> int:
    """Train, analyse and report as the options say; the exit status, 1 if some run failed.

    Raises:
        InfoProError: whatever does not fit together, before any run starts.
    """
    cells = plan_cells(
        options.family,
        methods=options.objectives,
        num_modules=options.num_modules,
        seeds=range(options.first_seed, options.first_seed + options.seeds),
        end_to_end=options.end_to_end,
        overrides=_overrides(options),
    )
    folder = Path(options.output or f"sweeps/{options.family or cells[0].config.model.replace('/', '-')}")
    refuse_locked(folder, what="sweep")
    if not options.resume:
        RunFolder.require_new(folder, remedy="pass --resume to go on with it, or another --output")
    require_writable(folder)
    _require_data(cells, options)
    jobs = _jobs(cells, folder, options)
    slots = free_slots(devices=options.devices, jobs=options.jobs, wanted=len(jobs))
    for line in _beginning(cells, jobs, slots, folder):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    stop = StopRequest()
    with locked(folder, what="sweep"):
        ended = _run(jobs, slots, cells, folder, stop, console)
        _finish(cells, folder, console)
    if stop():
        console.print("stopped; go on with --resume", highlight=False)
        return stop.exit_status
    unfinished = [job.name for job in jobs if ended.get(job.name) != 0]
    if unfinished:
        console.print(f"failed: {', '.join(unfinished)}", highlight=False, soft_wrap=True)
    return _FAILED if unfinished else 0


def _overrides(options: Any) -> dict[str, Any]:
    given = {f.name: getattr(options, f.name) for f in fields(recipes.RunConfig) if hasattr(options, f.name)}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if name not in VARIED
    }


def _require_data(cells: list[Cell], options: Any) -> None:
    """A set that is not there is said once, not by every run."""
    data_dir = Path(options.data_dir) if options.data_dir else None
    recipes.prepare_data(
        cells[0].config, data_dir=data_dir, download=options.download, device=torch.device("cpu")
    )


def _jobs(cells: list[Cell], folder: Path, options: Any) -> list[Job]:
    """All trainings that are not done, then all analyses."""
    runs = folder / "runs"
    reach = [f"--num-workers={options.num_workers}"]
    if options.data_dir:
        reach.append(f"--data-dir={options.data_dir}")
    training = [
        Job(
            name=cell.name,
            arguments=("train", *cell.options(), f"--output={runs / cell.name}", "--resume", *reach),
            output=folder / "output" / f"{cell.name}.txt",
        )
        for cell in cells
        if not is_finished(runs / cell.name, epochs=cell.config.epochs)
    ]
    analysed = [cell for cell in cells if _is_analysed(cell, cells, options.analyze)]
    probes = [f"--train-images={options.probe_images}"] if options.probe_images else []
    return [
        *training,
        *(
            Job(
                name=f"analysis of {cell.name}",
                arguments=("analyze", f"{runs / cell.name}", *_beside(cell, cells, runs), *probes, *reach),
                output=folder / "output" / f"{cell.name}-analysis.txt",
                after=cell.name,
            )
            for cell in analysed
            if not has_analysis(runs / cell.name)
        ),
    ]


def _beside(cell: Cell, cells: list[Cell], runs: Path) -> list[str]:
    """Blocks are compared with those of end to end with the same seed, where that is trained."""
    found = [c.name for c in cells if c.method == END_TO_END and c.config.seed == cell.config.seed]
    return [f"--compare-with={runs / name}" for name in found if name != cell.name]


def _is_analysed(cell: Cell, cells: list[Cell], which: str) -> bool:
    if _is_dense(cell):  # analyses are of labels
        return False
    largest = max(other.config.num_modules for other in cells)
    return which == "all" or (which == "largest-k" and cell.config.num_modules in (1, largest))


def _is_dense(cell: Cell) -> bool:
    return models.required_input(cell.config.model).dense


def _beginning(cells: list[Cell], jobs: list[Job], slots: list[Slot], folder: Path) -> list[str]:
    trained = {cell.name for cell in cells} - {job.name for job in jobs}
    devices = ", ".join(dict.fromkeys(slot.device for slot in slots))
    already = f", {len(trained)} of them trained already" if trained else ""
    notes = dict.fromkeys(f"note: {cell.note}" for cell in cells if cell.note)
    if any(map(_is_dense, cells)):
        notes["note: a network with a class for every pixel is trained and tested, not analysed"] = None
    threads = f" of {slots[0].threads} threads" if slots and slots[0].device == "cpu" else ""
    return [
        f"{len(cells)} runs{already}, in {folder}/",
        *([f"{len(slots)} side by side on {devices}{threads}"] if jobs else []),
        *notes,
    ]


def _run(
    jobs: list[Job], slots: list[Slot], cells: list[Cell], folder: Path, stop: StopRequest, console: Console
) -> dict[str, int]:
    epochs = {cell.name: cell.config.epochs for cell in cells}
    runs = folder / "runs"
    with stop.listening(), SweepProgress(console, jobs=jobs, epochs=epochs, folders=runs) as progress:
        return run_jobs(jobs, slots, stop=stop, on_look=progress.on_look, on_end=progress.on_end)


def _finish(cells: list[Cell], folder: Path, console: Console) -> None:
    results = read_results(cells, folder / "runs")
    if not results:
        return
    console.print(summary_table(results))
    written = write_results(results, folder / "results.csv")
    page = report_runs([result.folder for result in results], output=folder / "report.html")
    console.print(f"wrote {written} and {page}", highlight=False, soft_wrap=True)
