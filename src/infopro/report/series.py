"""Results -> the rows that charts plot and readers download; nothing here draws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from infopro.report._formats import MEBIBYTE
from infopro.report._types import MethodResult, RunResult, StepBytes
from infopro.report.spread import Spread, spread
from infopro.types import EpochRecord

__all__ = [
    "MAX_ROWS",
    "Row",
    "about",
    "best_epoch",
    "end_to_end",
    "epoch_stride",
    "error_against_k_rows",
    "error_rows",
    "last_records",
    "last_rows",
    "loss_rows",
    "memory_ratio",
    "memory_rows",
    "number",
    "reconstruction_rows",
    "rounded",
    "run_rows",
    "several_k",
    "shown_epochs",
    "step_rows",
]

Row = dict[str, str | int | float | None]
MAX_ROWS = 20_000  # about 1 MB of JSON: the page stays below 5 MB


def number(value: float | None) -> float | None:
    """JSON has no NaN: a diverged run leaves a gap in its line."""
    return float(value) if value is not None and math.isfinite(value) else None


def rounded(value: float | None) -> float | None:
    """To eight digits, more than a float32 has: where there are many numbers, further ones swell the page."""
    found = number(value)
    return None if found is None else float(f"{found:.8g}")


def about(method: MethodResult) -> Row:
    """What tells a method's rows apart."""
    return {"method": method.name, "family": method.label, "num_modules": method.num_modules}


def several_k(methods: Sequence[MethodResult]) -> list[int]:
    """The K above 1, where there is more than one: charts then show one K at a time."""
    found = sorted({method.num_modules for method in methods} - {1})
    return found if len(found) > 1 else []


def end_to_end(methods: Sequence[MethodResult]) -> MethodResult | None:
    """The method that memory is compared with: the first one in a single module."""
    return next((method for method in methods if method.num_modules == 1), None)


def memory_ratio(method: MethodResult, methods: Sequence[MethodResult]) -> float | None:
    """Saved bytes as a multiple of end to end's; None where there is nothing to compare with."""
    reference = end_to_end(methods)
    if reference is None or not reference.saved_bytes or method.saved_bytes is None:
        return None
    return method.saved_bytes / reference.saved_bytes


def best_epoch(method: MethodResult) -> int | None:
    """The first epoch that reached the lowest test error; None of several runs, which have one each."""
    finite = [record for record in method.records if math.isfinite(record.test_error)]
    if len(method.counted) > 1 or not finite:
        return None
    return min(finite, key=lambda record: record.test_error).epoch


def last_records(method: MethodResult) -> dict[int, EpochRecord]:
    """By seed: the last epoch; where no run is finished, the last one that all of them have reached."""
    runs = [run for run in method.counted if run.records]
    if all(run.finished for run in runs):
        return {run.seed: run.records[-1] for run in runs}
    reached = min(run.records[-1].epoch for run in runs)
    return {run.seed: [r for r in run.records if r.epoch <= reached][-1] for run in runs}


def epoch_stride(methods: Sequence[MethodResult]) -> int:
    """1 where every epoch is plotted, n where only every n-th and the last are: all would swell the page."""
    total = sum(
        len(_epochs(m)) * sum(len(terms) for terms in m.records[-1].losses) for m in methods if m.records
    )
    return max(1, math.ceil(total / MAX_ROWS))


def shown_epochs(methods: Sequence[MethodResult]) -> dict[str, list[int]]:
    """The epochs to plot, by method."""
    stride = epoch_stride(methods)
    return {m.name: _epochs(m)[:-1][::stride] + _epochs(m)[-1:] for m in methods}


def error_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per method and epoch: test error, train error and the lowest test error so far, in %; means of runs."""
    return [
        about(method)
        | {
            "epoch": epoch,
            "test_error_percent": _mean([record.test_error for record in records]),
            "test_error_deviation": _deviation([record.test_error for record in records]),
            "train_error_percent": _mean([record.train_error for record in records]),
            "best_test_error_percent": _mean([record.best_test_error for record in records]),
            "runs": len(records),
        }
        for method, epoch, records in _moments(methods)
    ]


def loss_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per method, epoch, module and term: the loss, in nats."""
    return [
        about(method)
        | {
            "epoch": epoch,
            "module": index,
            "term": term,
            "loss_nats": rounded(_mean([r.losses[index - 1].get(term, math.nan) for r in records])),
        }
        for method, epoch, records in _moments(methods)
        for index in range(1, min(len(record.losses) for record in records) + 1)
        for term in records[0].losses[index - 1]
    ]


def last_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per method: test error after the last epoch and after the best one, in %."""
    return [
        about(method)
        | {
            "last_test_error_percent": _mean([record.test_error for record in last]),
            "last_test_error_deviation": _deviation([record.test_error for record in last]),
            "best_test_error_percent": _mean([record.best_test_error for record in last]),
            "runs": len(last),
        }
        for method in methods
        if (last := list(last_records(method).values()) if method.records else [])
    ]


def run_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per run: its seed, epochs, errors in % and seconds of training."""
    return [_run_row(method, run) for method in methods for run in method.runs]


def _run_row(method: MethodResult, run: RunResult) -> Row:
    last = run.records[-1] if run.records else None
    return {
        "method": method.name,
        "run": run.name,
        "seed": run.seed,
        "epochs_done": last.epoch if last else 0,
        "epochs": run.epochs,
        "last_test_error_percent": number(last.test_error) if last else None,
        "best_test_error_percent": number(last.best_test_error) if last else None,
        "training_seconds": run.seconds,
    }


def error_against_k_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per method: the test error of the last epoch in %, with its standard deviation over the runs."""
    rows = []
    for row in last_rows(methods):
        mean, deviation = row["last_test_error_percent"], row["last_test_error_deviation"]
        if isinstance(mean, float):
            half = deviation if isinstance(deviation, float) else 0.0
            rows.append(row | {"low": mean - half, "high": mean + half})
    return rows


def memory_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per method: saved activations in MiB, and as a multiple of end to end's."""
    return [
        about(method)
        | {"saved_mebibytes": method.saved_bytes / MEBIBYTE, "ratio": memory_ratio(method, methods)}
        for method in methods
        if method.saved_bytes is not None
    ]


def step_rows(steps: Sequence[StepBytes]) -> list[Row]:
    """Per manner of training and kind: MiB that are alive at the peak of one step."""
    return [
        {
            "method": step.name,
            "kind": kind,
            "place": place,
            "mebibytes": size / MEBIBYTE,
            "peak_mebibytes": sum(step.kinds.values()) / MEBIBYTE,
        }
        for step in steps
        for place, (kind, size) in enumerate(step.kinds.items())
        if size
    ]


def reconstruction_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per method and module: the decoder's mean binary cross-entropy, in nats per pixel."""
    return [
        about(method) | {"module": part.module, "cross_entropy_nats": number(part.error)}
        for method in methods
        for part in method.reconstructions
    ]


def _epochs(method: MethodResult) -> list[int]:
    return sorted({record.epoch for run in method.counted for record in run.records})


def _moments(methods: Sequence[MethodResult]) -> Iterator[tuple[MethodResult, int, list[EpochRecord]]]:
    """Each method's shown epochs, with the records of all its runs that have got that far."""
    shown = shown_epochs(methods)
    for method in methods:
        by_epoch: Mapping[int, list[EpochRecord]] = {epoch: [] for epoch in shown[method.name]}
        for run in method.counted:
            for record in run.records:
                if record.epoch in by_epoch:
                    by_epoch[record.epoch].append(record)
        yield from ((method, epoch, records) for epoch, records in by_epoch.items())


def _of(values: Sequence[float]) -> Spread:
    found = spread(values)
    assert found is not None  # an epoch that is shown has a record
    return found


def _mean(values: Sequence[float]) -> float | None:
    return number(_of(values).mean)


def _deviation(values: Sequence[float]) -> float | None:
    return number(_of(values).deviation)
