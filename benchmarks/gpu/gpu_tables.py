"""The published tables with our lines beside them: every published number comes from the recipes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpu_jobs import Job, key_of
from gpu_priorities import measurements
from gpu_published import CHECKPOINTED_GB, TIMES

from infopro import recipes
from infopro.recipes import Recipe
from infopro.report.spread import Spread, spread

__all__ = [
    "FAMILIES",
    "MEASURED_GROUPS",
    "difference",
    "error_table",
    "measured_table",
    "speed_table",
    "table",
]

Row = Mapping[str, Any]

FAMILIES = {  # title -> pattern of its recipes, in the order in which the page has them
    "Table 2: CIFAR-10, ResNet-32": "cifar10-resnet32-*",
    "Table 2: CIFAR-10, ResNet-110, equal depth": "cifar10-resnet110-*",
    "Table 2: CIFAR-10, DenseNet-BC-100-12": "cifar10-densenet*",
    "Table 2: SVHN, ResNet-110": "svhn-*",
    "Table 2: STL-10, ResNet-110, equal depth": "stl10-*",
    "Table 3: CIFAR-10, ResNet-110, equal memory": "cifar10-resnet110-*-balanced-*",
    "Table 3: STL-10, ResNet-110, equal memory": "stl10-*-balanced-*",
    "Table 4: ImageNet, top-1": "imagenet-*",
    "Table 5: Cityscapes, 100 − mIoU, single scale": "cityscapes-*",
}
MEASURED_GROUPS = {  # title -> group of the priorities
    "Table 3: ResNet-110, batch 1024 (CIFAR-10) and 128 (STL-10)": "memory",
    "Table 4: 224×224, a GPU's eighth of the batch": "imagenet",
    "Table 5: DeepLabV3-R101, a GPU's half of the batch": "cityscapes",
}
FAR = 2.0  # of the paper's standard deviations, beyond which a worse cell is marked
NOT_RUN = "not run"
TRAINING_IMAGES = 50_000  # of CIFAR-10


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """As Markdown has it."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def members(pattern: str) -> list[Recipe]:
    """The recipes of a part, those with a published number; equal memory has a table of its own."""
    found = [recipes.load(name) for name in recipes.list_recipes(pattern)]
    apart = "balanced" in pattern or pattern.startswith(("imagenet", "cityscapes"))
    return [r for r in found if r.published and (apart or "-balanced-" not in r.name)]


def error_table(pattern: str, rows: Sequence[Row]) -> str:
    """A line a cell: the paper's error, ours after the last epoch, the difference, the best epoch's."""
    head = ["recipe", "paper (%)", "ours, last epoch (%)", "n", "difference", "best epoch (%)", "s a run"]
    return table(head, [list(_error_cells(recipe, rows)) for recipe in members(pattern)])


def _error_cells(recipe: Recipe, rows: Sequence[Row]) -> Iterator[str]:
    found = runs_of(recipe.name, rows)
    last, best = (spread([row[name] for row in found]) for name in ("test_error", "best_test_error"))
    seconds = spread([row["seconds"] for row in found])
    yield f"`{recipe.name}`"
    yield _published(recipe)
    yield NOT_RUN if last is None else number(last)
    yield str(len(found)) if found else "–"
    yield "–" if last is None else difference(recipe, last)
    yield "–" if best is None else number(best)
    yield "–" if seconds is None else f"{seconds.mean:.0f}"


def runs_of(name: str, rows: Sequence[Row]) -> list[Row]:
    """A recipe's finished runs as published, in the precision that most of them have."""
    found = [r for r in rows if r["kind"] == "train" and r["recipe"] == name and not r["changed"]]
    finished = [row for row in found if "error" not in row]
    counts = Counter(row["precision"] for row in finished)
    usual = max(counts, key=lambda precision: (counts[precision], precision)) if counts else None
    return sorted((row for row in finished if row["precision"] == usual), key=lambda row: row["seed"])


def difference(recipe: Recipe, ours: Spread) -> str:
    """Ours less the paper's, in points and in the paper's standard deviations; far worse is marked."""
    published = recipe.published
    assert published is not None
    points = ours.mean - published.test_error
    if not published.standard_deviation:
        return f"{points:+.2f}"
    deviations = points / published.standard_deviation
    text = f"{points:+.2f} ({deviations:+.1f} σ)"
    return f"**{text} worse**" if deviations > FAR else text


def number(found: Spread, digits: int = 2) -> str:
    """Mean ± standard deviation, which one run does not have."""
    deviation = "" if found.deviation is None else f" ± {found.deviation:.{digits}f}"
    return f"{found.mean:.{digits}f}{deviation}"


def _published(recipe: Recipe) -> str:
    published = recipe.published
    assert published is not None
    deviation = published.standard_deviation
    return f"{published.test_error:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")


def speed_table(rows: Sequence[Row]) -> str:
    """A step of ResNet-32 in every execution, and what the steps of a whole run come to."""
    found, lines = {key_of(row): row for row in rows}, []
    for job in measurements():
        row, config = found.get(job.key), job.config()
        if job.group != "speed":
            continue
        if row is None or "error" in row:
            lines.append([job.execution, NOT_RUN if row is None else f"failed: {row['error']}", *["–"] * 3])
            continue
        steps = config.epochs * -(-TRAINING_IMAGES // config.batch_size)
        compiling, peak = row["compile_seconds"], row["peak_bytes"]
        seconds = "–" if compiling is None else f"{compiling:.0f}"
        whole = f"{steps * row['step_seconds']:.0f}"
        memory = f"{peak / 1e9:.2f}" if peak else "–"
        lines.append([job.execution, f"{row['step_seconds'] * 1e3:.1f}", whole, seconds, memory])
    head = ["execution", "ms a step", "s for all steps", "s of compiling before", "GB"]
    return table(head, lines)


def measured_table(group: str, rows: Sequence[Row]) -> str:
    """Memory and time of a step, and the plan's peak; shares and × are of end to end at the same size."""
    head = ["recipe", "changed", "paper (GB)", "share", "×", "ours (GB)", "share", "×", "ms a step"]
    jobs = [job for job in measurements() if job.group == group]
    found = {key_of(row): row for row in rows}
    return table([*head, "plan / ours"], [_measured_cells(job, jobs, found) for job in jobs])


def _measured_cells(job: Job, jobs: Sequence[Job], rows: Mapping[str, Row]) -> list[str]:
    text = ", ".join(f"{name} {value}" for name, value in job.changed.items()) or "–"
    whole = _beside(job, jobs)
    return [f"`{job.recipe}`", text, *_paper(job, whole), *_ours(job, whole, rows)]


def _beside(job: Job, jobs: Sequence[Job]) -> Job | None:
    """The end-to-end step of the same network, batch and size, if there is one."""
    config = job.config()
    for other in jobs:
        whole = other.config()
        names = ("model", "data", "batch_size", "crop")
        same = all(getattr(whole, name) == getattr(config, name) for name in names)
        if same and whole.objective == "end-to-end" and whole.checkpoint == "none":
            return other
    return None


def _paper(job: Job, whole: Job | None) -> list[str]:
    """GB, its share of end to end, time as a multiple of end to end's."""
    memory = _published_gb(job)
    base = None if whole is None else _published_gb(whole)
    time = TIMES.get((job.recipe, "checkpoint" in job.changed))
    return [
        "–" if memory is None else f"{memory:.2f}",
        f"{memory / base:.0%}" if memory and base else "–",
        "–" if time is None else f"{time:.3f}",
    ]


def _published_gb(job: Job) -> float | None:
    if "checkpoint" in job.changed:
        return CHECKPOINTED_GB.get(job.recipe)
    published = recipes.load(job.recipe).published
    return None if published is None else published.memory_gb


def _ours(job: Job, whole: Job | None, rows: Mapping[str, Row]) -> list[str]:
    row = rows.get(job.key)
    if row is None or "error" in row:
        return [NOT_RUN if row is None else f"failed: {row['error']}", *["–"] * 4]
    base = None if whole is None else rows.get(whole.key)
    if base is not None and ("error" in base or base["hardware"] != row["hardware"]):
        base = None
    peak, whole_peak = row["peak_bytes"], base and base["peak_bytes"]
    return [
        f"{peak / 1e9:.2f}" if peak else "–",
        f"{peak / whole_peak:.0%}" if peak and whole_peak else "–",
        f"{row['step_seconds'] / base['step_seconds']:.3f}" if base else "–",
        f"{row['step_seconds'] * 1e3:.1f}",
        f"{row['planned_bytes'] / peak:.3f}" if peak else "–",
    ]
