"""The rows of step.py in a CSV file: one method of one network each, appended as they are found."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "Row", "append", "read", "timing"]

RESULTS = Path(__file__).parent / "results" / "step.csv"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method of one network; None where a number is not known."""

    network: str
    method: str
    family: str
    label: str
    gradient: str
    kind: str  # measured, predicted
    device: str
    precision: str
    batch_size: int
    num_modules: int
    time_ratio: float | None = None  # median over the rounds, end to end of the same round = 1
    time_ratio_min: float | None = None
    time_ratio_max: float | None = None
    images_per_second: float | None = None
    seconds: str | None = None  # of every round
    end_to_end_seconds: str | None = None
    peak_bytes: int | None = None
    reserved_bytes: int | None = None
    tensor_peak_bytes: int | None = None
    fixed_bytes: int | None = None
    saved_bytes: int | None = None
    saved_bound: int | None = None
    operations: int | None = None
    head_share: float | None = None
    error: str | None = None
    commit: str | None = None
    processor: str | None = None
    threads: int | None = None
    versions: str | None = None


def append(row: Row, file: Path = RESULTS) -> None:
    """Write a row behind the others."""
    new = not file.exists()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", newline="") as opened:
        writer = csv.DictWriter(opened, [field.name for field in fields(Row)])
        if new:
            writer.writeheader()
        writer.writerow(asdict(row))


def read(file: Path = RESULTS) -> list[Row]:
    """All rows; of a method that was run again under the same conditions, the last one."""
    with file.open(newline="") as opened:
        rows = [
            Row(**{name: _value(name, text) for name, text in line.items()})
            for line in csv.DictReader(opened)
        ]
    return list(
        {(r.network, r.kind, r.device, r.precision, r.batch_size, r.method): r for r in rows}.values()
    )


def timing(seconds: Sequence[float], baseline: Sequence[float], *, images: int) -> dict[str, Any]:
    """The columns of time: ratios are taken within each round."""
    found = [own / other for own, other in zip(seconds, baseline, strict=True)]
    return {
        "time_ratio": statistics.median(found),
        "time_ratio_min": min(found),
        "time_ratio_max": max(found),
        "images_per_second": images / statistics.median(seconds),
        "seconds": _joined(seconds),
        "end_to_end_seconds": _joined(baseline),
    }


def _joined(seconds: Iterable[float]) -> str:
    return " ".join(f"{s:.4f}" for s in seconds)


def _value(name: str, text: str) -> Any:
    kind = Row.__annotations__[name]
    if not text and "None" in kind:
        return None
    return float(text) if "float" in kind else int(text) if "int" in kind else text
