"""CamVid with a network that two CPU cores can train: end to end, greedy, DGL and InfoPro, K = 2 and 4.

    python benchmarks/segmentation.py --data-dir data

1. `infopro sweep camvid`: the recipes of recipes/camvid.py, 3 seeds, same iterations. The error of the last
   and of the best epoch; the predicted peak of a step.
2. The trade of InfoPro's Table 5: within the predicted peak of end to end with batches of 16, the largest
   batch and the largest crop (in steps of 16 pixels a side) that InfoPro affords with K = 2, each trained for
   as many epochs as fit into end to end's time. Learning rates grow with the batch.

Finished runs are not repeated. Writes benchmarks/results/segmentation.{csv,md}; about three hours on two
cores.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segmentation_trade import peak, step_seconds, traded, with_epochs

from infopro import recipes
from infopro.memory import format_bytes
from infopro.recipes import RunConfig
from infopro.stopping import StopRequest
from infopro.sweep import Job, free_slots, plan_cells, run_jobs
from infopro.sweep.results import mean_and_deviation, read_results
from infopro.training import RunFolder, describe_environment

RESULTS = Path(__file__).parent / "results"
SEEDS = 3
CLASSES = 11
TRADE_BATCH = 16
WHOLE, LOCAL = "camvid-end-to-end", "camvid-k2-infopro-softmax"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One manner of training, over its seeds."""

    part: str  # "same iterations" or "same memory and time"
    name: str
    num_modules: int
    batch_size: int
    crop: tuple[int, int]
    epochs: int
    peak_bytes: int  # predicted, of a step
    last: tuple[float, ...]  # mIoU in % after the last epoch, per seed
    best: tuple[float, ...]
    time: float | None  # of training, as a share of end to end's; None: not measured


def sweep(folder: Path, data_dir: str | None) -> list[Row]:
    """All recipes, and what they ended with."""
    places = [f"--output={folder}", *([f"--data-dir={data_dir}"] if data_dir else [])]
    command = [sys.executable, "-m", "infopro", "sweep", "camvid", f"--seeds={SEEDS}", "--analyze=none"]
    subprocess.run([*command, *places, "--resume"], check=True)
    results = read_results(plan_cells("camvid", seeds=range(SEEDS)), folder / "runs")
    names = dict.fromkeys((r.cell.method, r.cell.config.num_modules) for r in results)
    return [
        _row(
            "same iterations",
            method,
            [r.folder for r in results if (r.cell.method, r.cell.config.num_modules) == (method, k)],
        )
        for method, k in names
    ]


def trade(folder: Path, data_dir: str | None) -> list[Row]:
    """End to end with larger batches, and InfoPro within its memory and time."""
    whole, local = (_larger(name) for name in (WHOLE, LOCAL))
    budget = peak(whole, num_classes=CLASSES)
    found = {"end-to-end": whole, **traded(local, budget=budget, num_classes=CLASSES)}
    seconds = step_seconds(found, None if data_dir is None else Path(data_dir))
    fitted = with_epochs(found, seconds, whole="end-to-end")
    _train(
        {f"{name}-seed{s}": replace(c, seed=s) for name, c in fitted.items() for s in range(SEEDS)},
        folder,
        data_dir,
    )
    total = {name: seconds[name] / config.batch_size * config.epochs for name, config in fitted.items()}
    return [
        _row(
            "same memory and time",
            name if name == "end-to-end" else f"infopro-softmax, {name}",
            [folder / _folder(f"{name}-seed{s}") for s in range(SEEDS)],
            time=total[name] / total["end-to-end"],
        )
        for name in fitted
    ]


def _larger(recipe: str) -> RunConfig:
    config = recipes.load(recipe).config
    rate = config.learning_rate * TRADE_BATCH / config.batch_size
    return replace(config, batch_size=TRADE_BATCH, learning_rate=rate)


def _folder(name: str) -> str:
    return name.replace(" ", "-")


def _train(configs: dict[str, RunConfig], folder: Path, data_dir: str | None) -> None:
    jobs = []
    for name, config in configs.items():
        recipe = WHOLE if config.num_modules == 1 else LOCAL
        base = recipes.load(recipe).config
        changed = [
            f"--{field.replace('_', '-')}={_as_text(getattr(config, field))}"
            for field in ("batch_size", "crop", "learning_rate", "epochs", "seed")
            if getattr(config, field) != getattr(base, field)
        ]
        place = folder / _folder(name)
        arguments = ["train", recipe, *changed, f"--output={place}", "--resume"]
        arguments += [f"--data-dir={data_dir}"] if data_dir else []
        jobs.append(Job(name=name, arguments=tuple(arguments), output=folder / f"{_folder(name)}.txt"))
    folder.mkdir(parents=True, exist_ok=True)
    stop = StopRequest()
    with stop.listening():
        ended = run_jobs(jobs, free_slots(wanted=len(jobs)), stop=stop, on_end=_say)
    failed = [job.name for job in jobs if ended.get(job.name) != 0]
    if failed:
        raise SystemExit(f"not finished: {', '.join(failed)}; see {folder}/NAME.txt")


def _as_text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _say(job: Job, status: int, seconds: float) -> None:
    print(f"{job.name}: status {status}, {seconds:.0f} s", flush=True)


def _row(part: str, name: str, folders: Sequence[Path], *, time: float | None = None) -> Row:
    runs = [RunFolder.open(folder) for folder in folders]
    logs = [run.log() for run in runs]
    config = recipes.from_plain(runs[0].configuration)
    assert config.crop is not None
    return Row(
        part=part,
        name=name,
        num_modules=config.num_modules,
        batch_size=config.batch_size,
        crop=config.crop,
        epochs=config.epochs,
        peak_bytes=peak(config, num_classes=CLASSES),
        last=tuple(100 - log[-1].test_error for log in logs),
        best=tuple(100 - log[-1].best_test_error for log in logs),
        time=time,
    )


def write(rows: Sequence[Row]) -> None:
    """The CSV, one line a seed, and the table."""
    with (RESULTS / "segmentation.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        header = "part name num_modules batch_size crop epochs peak_bytes seed last_miou best_miou time"
        writer.writerow(header.split())
        for row in rows:
            for seed, (last, best) in enumerate(zip(row.last, row.best, strict=True)):
                crop = "x".join(map(str, row.crop))
                numbers = (row.batch_size, crop, row.epochs, row.peak_bytes, seed)
                scores = (round(last, 3), round(best, 3), row.time and round(row.time, 3))
                writer.writerow((row.part, row.name, row.num_modules, *numbers, *scores))
    (RESULTS / "segmentation.md").write_text("\n".join(_table(rows)) + "\n")


def _table(rows: Sequence[Row]) -> Iterator[str]:
    environment = describe_environment(recipes.choose_device("cpu"))
    yield "# CamVid on two cores"
    yield ""
    yield (
        "Made by `python benchmarks/segmentation.py`: DeepLabV3+ on ResNet-18 from random weights, images of "
        f"144x192, bfloat16, seeds 0 to {SEEDS - 1}, tested on whole images. mIoU in %, mean ± standard "
        "deviation. Peaks are predicted; time is that of a training step, measured in turns, times their "
        f"number. {environment['device']}, torch {environment['versions']['torch']}, two runs at a time."
    )
    for part in dict.fromkeys(row.part for row in rows):
        own = [row for row in rows if row.part == part]
        timed = own[0].time is not None
        yield from ("", f"## {part.capitalize()}", "")
        header = "| method | K | batch | crop | epochs | peak of a step |"
        yield f"{header}{' time |' * timed} last epoch | best epoch |"
        yield "|---|---|---|---|---|---|---|---|" + "---|" * timed
        for row in own:
            crop = "x".join(map(str, row.crop))
            setting = f"{row.num_modules} | {row.batch_size} | {crop} | {row.epochs}"
            share = f"{format_bytes(row.peak_bytes)} ({row.peak_bytes / own[0].peak_bytes:.0%})"
            time = f" {row.time:.2f} x |" if row.time is not None else ""
            scores = f"{mean_and_deviation(row.last)} | {mean_and_deviation(row.best)}"
            yield f"| {row.name} | {setting} | {share} |{time} {scores} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", default=None, help="folder with CamVid, or with its zip archive")
    parser.add_argument("--folder", type=Path, default=Path("sweeps/camvid"), help="of the runs")
    options = parser.parse_args()
    rows = sweep(options.folder, options.data_dir)
    write([*rows, *trade(options.folder / "trade", options.data_dir)])


if __name__ == "__main__":
    main()
