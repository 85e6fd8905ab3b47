"""One self-contained HTML page: chart library, data and images inside, no request to anywhere."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from infopro.errors import BadInput
from infopro.report import _formats
from infopro.report._checks import check_report
from infopro.report._images import image_grid
from infopro.report._packages import report_package
from infopro.report._types import ReportData
from infopro.report.charts import Figure, figures
from infopro.report.series import epoch_stride
from infopro.report.tables import COLUMNS, result_cells

__all__ = ["render_report", "write_report"]


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
    target.parent.mkdir(parents=True, exist_ok=True)
    _write_whole(target, page)
    return target


def _write_whole(target: Path, text: str) -> None:
    # not tempfile: its files are readable by their owner alone
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def render_report(data: ReportData) -> str:
    """The page as text; raises as `write_report` does."""
    check_report(data)
    jinja2 = report_package("jinja2")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "mebibytes": _formats.mebibytes,
        "count": _formats.count,
        "nats": _formats.nats,
        "shape": _formats.shape,
    }
    page: str = environment.from_string(_shipped("page.html.j2")).render(_context(data))
    return page


def _context(data: ReportData) -> dict[str, Any]:
    charts = figures(data.methods)
    drawn = [figure for part in charts.values() for figure in part]
    decoded = any(method.reconstructions for method in data.methods)
    return {
        "data": data,
        "columns": COLUMNS,
        "rows": [(method, result_cells(method, data.methods)) for method in data.methods],
        "charts": charts,
        "grid": image_grid(data) if decoded else None,
        "image_shape": [data.originals.shape[axis] for axis in (3, 1, 2)] if len(data.originals) else None,
        "largest": max((stage.saved_bytes for stage in data.stages), default=0),
        "epoch_stride": epoch_stride(data.methods),
        "style": _shipped("page.css"),
        "script": _shipped("page.js"),
        "library": _chart_library(),
        "specs_json": _json({figure.key: figure.spec for figure in drawn}),
        "series_json": _json(_series(data, drawn)),
    }


def _series(data: ReportData, drawn: list[Figure]) -> dict[str, Any]:
    """What a reader can download: the rows of every chart, and what they were made with."""
    return {
        "title": data.title,
        "command": data.command,
        "configuration": dict(data.configuration),
        "environment": dict(data.environment),
        "series": {figure.key: figure.rows for figure in drawn},
    }


def _json(value: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _shipped(name: str) -> str:
    return resources.files("infopro.report").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _chart_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, in the version that altair's specifications are for."""
    altair = report_package("altair")
    converter = report_package("vl_convert", distribution="vl-convert-python")
    version = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    known = converter.get_vegalite_versions()
    library: str = converter.javascript_bundle(vl_version=version if version in known else None)
    return library.replace("</script", "<\\/script").replace("<!--", "<\\!--")
