"""Analyses of runs -> the rows of the information charts; nothing here draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath

from infopro.analysis import Analysis, BlockInformation, Similarity
from infopro.analysis.information import input_information, input_scores
from infopro.report._types import MethodResult, RunResult
from infopro.report.series import MAX_ROWS, Row, about, number, rounded
from infopro.report.spread import Spread, spread

__all__ = [
    "angle_rows",
    "block_names",
    "image_rows",
    "linear_rows",
    "norm_rows",
    "nuisance_rows",
    "score_rows",
    "similarity_rows",
    "similarity_stride",
    "task_rows",
]

Estimate = Callable[[Analysis, BlockInformation], Sequence[float]]  # one number per probe seed


def block_names(methods: Sequence[MethodResult]) -> list[str]:
    """By depth, the name that all analysed networks have for the block there; the depth where they differ."""
    names: dict[int, set[str]] = {}
    for _, _, analysis in _runs(methods):
        for block in analysis.blocks:
            names.setdefault(block.depth, set()).add(block.block)
    deepest = max(names, default=-1)
    found = [names.get(depth, set()) for depth in range(deepest + 1)]
    return [next(iter(name)) if len(name) == 1 else str(depth) for depth, name in enumerate(found)]


def linear_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per method and block: test error in % of a linear classifier on its frozen output."""
    return _rows(methods, "test_error_percent", lambda analysis, block: block.linear_error)


def score_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per method and block: 1 - cross-entropy of the decoded test images, as InfoPro's paper plots it."""
    return _rows(methods, "score", lambda _, block: input_scores(block))


def image_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per method and block: nats per image by which decoding beats the best constant image."""
    return _rows(
        methods, "information_nats", lambda analysis, block: input_information(block, analysis.references)
    )


def task_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per method, block and capacity of the auxiliary network: nats about the class, its test error in %."""
    rows = []
    for capacity in _keys(methods, "task_information"):
        found = _rows(methods, "information_nats", _entry("task_information", capacity))
        errors = _rows(methods, "test_error_percent", _entry("task_error", capacity))
        error = {(row["method"], row["block"]): row["test_error_percent"] for row in errors}
        for row in found:
            row["capacity"] = capacity
            row["test_error_percent"] = error.get((row["method"], row["block"]))
        rows += found
    entropy = _reference(methods, lambda analysis: analysis.references.label_entropy)
    return [row | {"label_entropy_nats": entropy} for row in rows]


def nuisance_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per method, block and factor: nats about the factor, beside its entropy."""
    rows = []
    for factor in _keys(methods, "nuisance_information"):
        entropy = _reference(methods, lambda analysis: analysis.references.nuisance_entropy.get(factor))  # noqa: B023
        found = _rows(methods, "information_nats", _entry("nuisance_information", factor))
        rows += [row | {"panel": factor.replace("_", " "), "entropy_nats": entropy} for row in found]
    return rows


def angle_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per method and module: the angle to the end-to-end gradient in degrees, over all batches and runs."""
    return [row for row in _gradients(methods) if row["angle_degrees"] is not None]


def norm_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per method and module: the norms of the local and of the end-to-end gradient."""
    names = {"local_norm": "local", "end_to_end_norm": "end to end"}
    return [
        {key: row[key] for key in ("method", "family", "num_modules", "module", "batches")}
        | {"gradient": name, "norm": row[field]}
        for row in _gradients(methods)
        for field, name in names.items()
    ]


def similarity_stride(methods: Sequence[MethodResult]) -> int:
    """1 where every block is compared, n where only every n-th is: all would swell the page."""
    cells = {
        _pair(methods, method, run, similarity): len(similarity.rows) * len(similarity.columns)
        for method, run, analysis in _runs(methods)
        for similarity in analysis.similarities
    }
    return max(1, math.ceil(math.sqrt(sum(cells.values()) / MAX_ROWS)))


def similarity_rows(methods: Sequence[MethodResult]) -> list[Row]:
    """Per pair of networks and pair of blocks: linear CKA, a mean over the runs that have it."""
    stride = similarity_stride(methods)
    found: dict[tuple[str, str], dict[tuple[str, str], list[float]]] = {}
    for method, run, analysis in _runs(methods):
        for similarity in analysis.similarities:
            cells = found.setdefault(_pair(methods, method, run, similarity), {})
            rows = zip(similarity.rows[::stride], similarity.values[::stride], strict=True)
            for row, values in rows:
                for column, value in zip(similarity.columns[::stride], values[::stride], strict=True):
                    cells.setdefault((row, column), []).append(value)
    return [
        {
            "pair": first if first == second else f"{first} and {second}",
            "row": row,
            "column": column,
            "cka": rounded(sum(values) / len(values)),
            "runs": len(values),
        }
        for (first, second), cells in found.items()
        for (row, column), values in cells.items()
    ]


def _pair(
    methods: Sequence[MethodResult], method: MethodResult, run: RunResult, similarity: Similarity
) -> tuple[str, str]:
    """The two networks' names on the page; a run that the page does not have keeps its own."""
    if similarity.row_run == similarity.column_run:
        return method.name, method.name
    wanted = PurePath(similarity.column_run).name
    for other in methods:
        for one in other.runs:
            if one is not run and one.folder == wanted:
                return method.name, other.name if other is not method else f"{other.name} ({one.name})"
    return method.name, similarity.column_run


def _rows(methods: Sequence[MethodResult], field: str, estimate: Estimate) -> list[Row]:
    """A row per method and block, of those for which the estimate was made."""
    rows = []
    for method in methods:
        analyses = [analysis for _, _, analysis in _runs([method])]
        blocks = analyses[0].blocks if analyses else ()
        for index, block in enumerate(blocks):
            found = _over(analyses, block.block, estimate)
            if found is not None:
                following = blocks[index + 1].module if index + 1 < len(blocks) else block.module
                ends = bool(block.module) and following != block.module
                rows.append(_row(method, block, field, found, ends=ends))
    return rows


def _row(method: MethodResult, block: BlockInformation, field: str, found: Spread, *, ends: bool) -> Row:
    half = found.half_width
    return about(method) | {
        "block": block.block,
        "depth": block.depth,
        "module": block.module,
        "ends_module": int(ends),
        field: rounded(found.mean),
        "low": None if half is None else rounded(found.mean - half),
        "high": None if half is None else rounded(found.mean + half),
        "estimates": found.count,
    }


def _over(analyses: Sequence[Analysis], block: str, estimate: Estimate) -> Spread | None:
    """Over runs, each by the mean of its probe seeds; over the probe seeds where there is one run."""
    per_run = [
        list(values)
        for analysis in analyses
        for found in analysis.blocks
        if found.block == block and (values := estimate(analysis, found))
    ]
    if len(per_run) == 1:
        return spread(per_run[0])
    return spread([sum(values) / len(values) for values in per_run])


def _entry(field: str, key: str) -> Estimate:
    return lambda analysis, block: getattr(block, field).get(key, ())


def _keys(methods: Sequence[MethodResult], field: str) -> list[str]:
    blocks = [block for _, _, analysis in _runs(methods) for block in analysis.blocks]
    return list(dict.fromkeys(key for block in blocks for key in getattr(block, field)))


def _reference(methods: Sequence[MethodResult], value: Callable[[Analysis], float | None]) -> float | None:
    """Of the first analysis that has it: all runs of a page are tested on the same images."""
    found = (value(analysis) for _, _, analysis in _runs(methods))
    return next((number(entry) for entry in found if entry is not None), None)


def _gradients(methods: Sequence[MethodResult]) -> list[Row]:
    rows = []
    for method in methods:
        if method.num_modules == 1:  # its local gradient is the end-to-end one
            continue
        analyses = [analysis for _, _, analysis in _runs([method])]
        for module in sorted({g.module for analysis in analyses for g in analysis.gradients}):
            found = [g for analysis in analyses for g in analysis.gradients if g.module == module]
            angles = spread([a for g in found for a in g.angle_degrees if number(a) is not None])
            norms = {
                field: spread([n for g in found for n in getattr(g, field)])
                for field in ("local_norm", "end_to_end_norm")
            }
            rows.append(_gradient_row(method, module, angles, norms))
    return rows


def _gradient_row(
    method: MethodResult, module: int, angles: Spread | None, norms: dict[str, Spread | None]
) -> Row:
    row: Row = about(method) | {"module": module, "batches": angles.count if angles else 0}
    half = (angles.deviation or 0.0) if angles else 0.0
    row["angle_degrees"] = number(angles.mean) if angles else None
    row["low"], row["high"] = (angles.mean - half, angles.mean + half) if angles else (None, None)
    return row | {name: number(found.mean) if found else None for name, found in norms.items()}


def _runs(methods: Sequence[MethodResult]) -> Iterator[tuple[MethodResult, RunResult, Analysis]]:
    for method in methods:
        for run in method.runs:
            if run.analysis is not None:
                yield method, run, run.analysis
