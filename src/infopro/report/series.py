"""Results -> the rows that charts plot and readers download; nothing here draws."""

from __future__ import annotations

import math
from collections.abc import Sequence

from infopro.report._formats import MEBIBYTE
from infopro.report._types import MethodResult
from infopro.types import EpochRecord

__all__ = [
    "Row",
    "best_epoch",
    "end_to_end",
    "epoch_stride",
    "error_rows",
    "last_rows",
    "loss_rows",
    "memory_ratio",
    "memory_rows",
    "reconstruction_rows",
    "shown_records",
]

Row = dict[str, str | int | float | None]
MAX_ROWS = 20_000  # about 1.5 MB of JSON: the page stays below 5 MB


def _number(value: float) -> float | None:
    """JSON has no NaN: a diverged run leaves a gap in its line."""
    return float(value) if math.isfinite(value) else None


def end_to_end(methods: Sequence[MethodResult]) -> MethodResult | None:
    """The method that memory is compared with: the first one in a single module."""
    return next((method for method in methods if method.num_modules == 1), None)


def memory_ratio(method: MethodResult, methods: Sequence[MethodResult]) -> float | None:
    """Saved bytes as a multiple of end to end's; None where there is nothing to compare with."""
    reference = end_to_end(methods)
    return method.saved_bytes / reference.saved_bytes if reference and reference.saved_bytes else None


def best_epoch(method: MethodResult) -> int | None:
    """The first epoch that reached the lowest test error."""
    finite = [record for record in method.records if math.isfinite(record.test_error)]
    return min(finite, key=lambda record: record.test_error).epoch if finite else None


def epoch_stride(methods: Sequence[MethodResult]) -> int:
    """1 where every epoch is plotted, n where only every n-th and the last are: all would swell the page."""
    total = sum(len(terms) for m in methods for record in m.records for terms in record.losses)
    return max(1, math.ceil(total / MAX_ROWS))


def shown_records(methods: Sequence[MethodResult]) -> dict[str, tuple[EpochRecord, ...]]:
    """The epochs to plot, by method."""
    stride = epoch_stride(methods)
    return {m.name: m.records[:-1][::stride] + m.records[-1:] for m in methods}


def error_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per method and epoch: test error, train error and the lowest test error so far, in %."""
    shown = shown_records(methods)
    return [
        {
            "method": method.name,
            "epoch": record.epoch,
            "test_error_percent": _number(record.test_error),
            "train_error_percent": _number(record.train_error),
            "best_test_error_percent": _number(record.best_test_error),
        }
        for method in methods
        for record in shown[method.name]
    ]


def loss_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per method, epoch, module and term: the loss, in nats.

    A network in one piece has one loss, at its output: its panel is that of the last modules.
    """
    shown = shown_records(methods)
    num_modules = max((method.num_modules for method in methods), default=1)
    return [
        {
            "method": method.name,
            "epoch": record.epoch,
            "module": index,
            "panel": num_modules if method.num_modules == 1 else index,
            "term": term,
            "loss_nats": _number(value),
        }
        for method in methods
        for record in shown[method.name]
        for index, terms in enumerate(record.losses, start=1)
        for term, value in terms.items()
    ]


def last_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per method: test error after the last epoch and after the best one, in %."""
    return [
        {
            "method": method.name,
            "last_test_error_percent": _number(method.records[-1].test_error),
            "best_test_error_percent": _number(method.records[-1].best_test_error),
        }
        for method in methods
        if method.records
    ]


def memory_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per method: saved activations in MiB, and as a multiple of end to end's."""
    return [
        {
            "method": method.name,
            "num_modules": method.num_modules,
            "saved_mebibytes": method.saved_bytes / MEBIBYTE,
            "ratio": memory_ratio(method, methods),
        }
        for method in methods
    ]


def reconstruction_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per method and module: the decoder's mean binary cross-entropy, in nats per pixel."""
    return [
        {"method": method.name, "module": part.module, "cross_entropy_nats": _number(part.error)}
        for method in methods
        for part in method.reconstructions
    ]
