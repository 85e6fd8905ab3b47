"""One self-contained HTML page: chart library, data and images inside, no request to anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infopro.errors import BadInput
from infopro.report._checks import check_report
from infopro.report._drawing import DASHES, EVERY_K, SHOWN_K, Figure
from infopro.report._html import chart_library, embedded, packed, rendered, write_whole
from infopro.report._images import BUDGET, image_grid
from infopro.report._information_charts import information_figures
from infopro.report._mask_pictures import mask_grid
from infopro.report._memory_charts import step_bytes
from infopro.report._network_charts import gradient_figures, similarity_figures
from infopro.report._types import ReportData
from infopro.report.charts import figures
from infopro.report.information import similarity_stride
from infopro.report.series import epoch_stride, run_rows, several_k
from infopro.report.tables import result_cells, result_columns
from infopro.report.timeline import timeline_parts

__all__ = ["render_report", "write_report"]

MOST = 4_700_000  # characters of library, charts and images: the page stays below 5 MB


def write_report(data: ReportData, path: Path | str) -> Path:
    """Writes the page and returns its path; the file appears whole or not at all.

    It opens from the disk without a network, on a phone, in light and dark, and prints. The same data give
    the same bytes. Beside the 0.9 MB of the chart library at most about 4 MB of images and data are embedded:
    beyond that, test images and epochs are left out, and the page says so.

    Raises:
        BadInput: the data contradict themselves, or `path` is a folder.
        MissingPackage: a package of the `report` extra is missing.
    """
    target = Path(path)
    if target.is_dir():
        raise BadInput(
            "the report's path is a folder", got=str(target), remedy="name a file, such as report.html"
        )
    page = render_report(data)
    write_whole(target, page)
    return target


def render_report(data: ReportData) -> str:
    """The page as text; raises as `write_report` does."""
    check_report(data)
    charts = _charts(data)
    pipeline = timeline_parts(data.timelines) if data.timelines else None
    drawn = [figure for part in charts.values() for figure in part]
    if pipeline is not None:
        drawn += [*pipeline.times, *pipeline.waiting]
    record = {
        "title": data.title,
        "command": data.command,
        "configuration": dict(data.configuration),
        "environment": dict(data.environment),
        "runs": packed(run_rows(data.methods)),
    }
    return rendered("page.html.j2", drawn, record, charts=charts, pipeline=pipeline, **_context(data, drawn))


def _charts(data: ReportData) -> dict[str, tuple[Figure, ...]]:
    """By section of the page."""
    trained = figures(data.methods)
    if data.memory:  # which has the activations, too
        trained["result"] = tuple(f for f in trained["result"] if f.key != "saved-activations")
    return {
        **trained,
        "knowledge": information_figures(data.methods),
        "similarity": similarity_figures(data.methods),
        "gradients": gradient_figures(data.methods),
        "memory": (step_bytes(data.memory),) if data.memory else (),
    }


def _room(drawn: Sequence[Figure]) -> int:
    """Characters that charts and their rows leave for images."""
    charts = sum(len(embedded({f.key: f.spec, "rows": packed(f.rows)})) for f in drawn)
    return min(BUDGET, MOST - len(chart_library()) - charts)


def _context(data: ReportData, drawn: Sequence[Figure]) -> dict[str, Any]:
    """What the template reads besides the charts."""
    decoded = any(method.reconstructions for method in data.methods)
    several = several_k(data.methods)
    dashes = [" ".join(map(str, DASHES[i % len(DASHES)])) for i in range(len(several) + 1)]
    return {
        "data": data,
        "columns": result_columns(data.methods),
        "rows": [(method, result_cells(method, data.methods)) for method in data.methods],
        "runs": run_rows(data.methods) if any(len(method.runs) > 1 for method in data.methods) else [],
        "grid": image_grid(data, budget=_room(drawn)) if decoded else None,
        "masks": mask_grid(data.masks, budget=_room(drawn)) if data.masks is not None else None,
        "image_shape": [data.originals.shape[axis] for axis in (3, 1, 2)] if len(data.originals) else None,
        "largest": {s.of: max(stage.saved_bytes for stage in s.stages) for s in data.splits},
        "epoch_stride": epoch_stride(data.methods),
        "block_stride": similarity_stride(data.methods),
        "shown_k": SHOWN_K,
        "every_k": EVERY_K,
        "several_k": several[::-1],
        "dashes": list(zip([1, *several], dashes, strict=True)) if several else [],
    }
