"""The rows of `pipeline.py` as a table for people and as a CSV file."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline_jobs import Job

__all__ = ["Variant", "markdown", "plain_table", "ratio", "row_of", "write_csv"]

HEADINGS = (
    "how",
    "images/s",
    "sd, n",
    "÷ local, one process",
    "÷ end to end, one process",
    "idle",
    "formula",
    "memory, MiB",
    "sent per step, MiB",
)


@dataclass
class Variant:
    """One way to train, and what was found of it, round by round."""

    name: str
    job: Job
    baseline: str  # the variant of the local objective in one process
    formula: float | None = None  # idle share that theory gives
    rows: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    def rates(self) -> dict[int, float]:
        """Images per second by round."""
        return {row["round"]: row["images_per_second"] for row in self.rows}

    def median(self, column: str) -> float | None:
        found = [row[column] for row in self.rows if row[column] is not None]
        return statistics.median(found) if found else None


def row_of(variant: Variant, round_: int, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One round's numbers of all processes of a variant: the slowest, the largest, the mean idle share."""
    images, job = sum(result["images"] for result in results), variant.job
    if job.kind in ("pipeline", "schedule"):
        images /= job.processes  # every process sees every image
    idle = [result["idle"] for result in results if result["idle"] is not None]
    return {
        "round": round_,
        "variant": variant.name,
        "kind": job.kind,
        "processes": job.processes,
        "objective": job.objective if job.cuts else "end-to-end",
        "cuts": " ".join(job.cuts),
        "microbatches": job.microbatches,
        "images_per_second": images / max(result["seconds"] for result in results),
        "with_filling_images_per_second": images
        / job.steps
        * (job.warmup + job.steps + job.cooldown)
        / max(result["whole_seconds"] for result in results),
        "idle_share": statistics.mean(idle) if idle else None,
        "memory_bytes": max(result["memory"] for result in results),
        "bytes_sent_per_step": max(result["bytes_per_step"] for result in results),
        "stage_seconds": " ".join(f"{s:.4f}" for s in results[0].get("stage_seconds", [])),
        "error": None,
    }


def ratio(variant: Variant, baseline: Variant | None) -> float | None:
    """Median over the rounds of the ratio within a round."""
    if baseline is None:
        return None
    own, other = variant.rates(), baseline.rates()
    found = [own[round_] / other[round_] for round_ in own if round_ in other]
    return statistics.median(found) if found else None


def _cells(variant: Variant, by_name: Mapping[str, Variant], end_to_end: str) -> list[str]:
    if not variant.rows:
        reason = variant.error or "not measured"
        return [variant.name, f"did not run: {reason}", *[""] * (len(HEADINGS) - 2)]
    rates = list(variant.rates().values())
    spread = f"{statistics.stdev(rates):.1f}, {len(rates)}" if len(rates) > 1 else f"-, {len(rates)}"
    alone = variant.job.kind in ("alone", "at once")
    memory, sent = variant.median("memory_bytes"), variant.median("bytes_sent_per_step")
    return [
        variant.name + (f" (failed later: {variant.error})" if variant.error else ""),
        f"{statistics.median(rates):.1f}",
        spread,
        _number(ratio(variant, by_name.get(variant.baseline))),
        _number(ratio(variant, by_name.get(end_to_end))),
        "" if alone else _percent(variant.median("idle_share")),
        _percent(variant.formula),
        "" if memory is None else f"{memory / 2**20:.0f}",
        "" if alone or sent is None else f"{sent / 2**20:.2f}",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _table(variants: Iterable[Variant], end_to_end: str) -> list[list[str]]:
    found = list(variants)
    by_name = {variant.name: variant for variant in found}
    return [list(HEADINGS), *(_cells(variant, by_name, end_to_end) for variant in found)]


def plain_table(variants: Iterable[Variant], end_to_end: str) -> str:
    """Columns of equal width; a reason instead of numbers may run over."""
    rows = _table(variants, end_to_end)
    full = [row for row in rows if not row[1].startswith("did not run")]
    widths = [max(len(row[column]) for row in full) for column in range(len(HEADINGS))]
    widths[0] = max(len(row[0]) for row in rows)
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def markdown(variants: Iterable[Variant], end_to_end: str, notes: Sequence[str]) -> str:
    """A table for the documents, with the notes below it."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in _table(variants, end_to_end)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, f"| {' | '.join(['---'] * len(HEADINGS))} |")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes), ""])


def write_csv(file: Path, variants: Iterable[Variant], constant: Mapping[str, Any]) -> None:
    """All rounds of all variants, one a line; one that never ran has its reason."""
    rows = []
    for variant in variants:
        rows += variant.rows
        if variant.error:
            rows.append({"variant": variant.name, "kind": variant.job.kind, "error": variant.error})
    columns = dict.fromkeys([name for row in rows for name in row] + list(constant))
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, fieldnames=list(columns))
        writer.writeheader()
        writer.writerows({**row, **constant} for row in rows)
