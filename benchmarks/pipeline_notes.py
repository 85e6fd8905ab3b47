"""Names of the ways to train in `pipeline.py`, and what stands below its table."""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from pipeline_table import Variant, ratio

__all__ = ["CEILING", "END_TO_END", "alone_name", "closing_notes", "pipeline_name"]

END_TO_END = "end to end, one process"
CEILING = "independent local runs at once"


def alone_name(objective: str) -> str:
    return f"local {objective}, one process"


def pipeline_name(objective: str) -> str:
    return f"local {objective}, pipeline"


def closing_notes(
    options: argparse.Namespace, environment: dict[str, Any], variants: list[Variant]
) -> list[str]:
    """What a reader must know to read the table."""
    by_name = {variant.name: variant for variant in variants}
    first = by_name[alone_name(options.objectives[0])]
    ceiling = ratio(by_name[CEILING], first)
    notes = [
        f"{options.model} ({environment['parameters']} parameters), batch {options.batch_size}, "
        f"K = {options.num_modules}, one thread per process, {environment['device']}, "
        f"{environment['cores']} cores, torch {environment['versions']['torch']}.",
        f"Median of {options.rounds} rounds of {options.steps} steps after {options.warmup}; ratios are "
        "those within a round. The local pipeline is timed when it is full; it is filled once per run.",
        "Idle: waiting share of all processes, measured; formula: (K - 1) / (m + K - 1). Memory: growth of "
        "the resident high-water mark of the largest process. Sent: by the process that sends most; of data "
        "parallel runs what a ring all-reduce sends, computed.",
        "BatchNorm sees microbatches in GPipe, 1F1B and the zero-bubble schedules, the process's part of the "
        "batch in data parallel runs, and whole batches in the local pipeline.",
        "The zero-bubble schedules need two stages per process: the network is cut into 2K parts for them.",
    ]
    if ceiling is not None:
        notes.insert(0, _against(ceiling, options, by_name, first))
    return notes + [
        _in_place(variant) for variant in variants if variant.job.kind == "pipeline" and variant.rows
    ]


def _against(ceiling: float, options: argparse.Namespace, by_name: dict[str, Variant], first: Variant) -> str:
    own = ratio(by_name[pipeline_name(options.objectives[0])], first)
    text = (
        f"This machine's ceiling: {options.num_modules} independent runs at once do {ceiling:.3f} x one alone"
    )
    return text + (
        "." if own is None else f"; the local pipeline reaches {own:.3f} x, {own / ceiling:.1%} of it."
    )


def _in_place(variant: Variant) -> str:
    rows = [[float(s) for s in row["stage_seconds"].split()] for row in variant.rows]
    medians = [statistics.median(stage) for stage in zip(*rows, strict=True)]
    listed = " and ".join(f"{s:.3f}" for s in medians)
    job, rate = variant.job, variant.median("with_filling_images_per_second")
    number = job.warmup + job.steps + job.cooldown
    return (
        f"{variant.name}: computing seconds per step and stage in the running pipeline: {listed}; "
        f"with filling, draining and the first steps {rate:.1f} images/s over {number} steps."
    )
