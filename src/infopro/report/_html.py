"""What every page is made of: shipped parts, the chart library, JSON inside HTML, a file written whole."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from infopro.report import _formats
from infopro.report._drawing import Figure
from infopro.report._packages import report_package
from infopro.report.series import Row

__all__ = ["MARKER", "chart_library", "embedded", "packed", "rendered", "shipped", "write_whole"]

MARKER = '<meta name="generator" content="infopro report">'  # by which a page is known as one of ours


def rendered(template: str, figures: Sequence[Figure], record: Mapping[str, Any], **context: Any) -> str:
    """A page from its template: the figures' rows stand in `record["series"]`, which readers can download."""
    jinja2 = report_package("jinja2")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(shipped),
    )
    names = ("mebibytes", "count", "nats", "shape", "operations")
    environment.filters |= {name: getattr(_formats, name) for name in names}
    page: str = environment.get_template(template).render(
        **context,
        marker=MARKER,
        style=shipped("page.css"),
        script=shipped("page.js"),
        library=chart_library(),
        specs_json=embedded({figure.key: figure.spec for figure in figures}),
        series_json=embedded({**record, "series": {f.key: packed(f.rows) for f in figures}}),
    )
    return page


def packed(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows column by column, texts as numbers of a list: a fifth of the size; page.js unpacks them.

    Example:
        >>> packed([{"method": "greedy", "epoch": 1}, {"method": "greedy", "epoch": 2}])
        {'names': ['method', 'epoch'], 'columns': [{'texts': ['greedy'], 'at': [0, 0]}, [1, 2]]}
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {"names": names, "columns": [_column([row.get(name) for row in rows]) for name in names]}


def _column(values: Sequence[str | int | float | None]) -> Any:
    if not all(isinstance(value, str) for value in values):
        return values
    texts = {text: index for index, text in enumerate(dict.fromkeys(values))}
    return {"texts": list(texts), "at": [texts[value] for value in values]}


def embedded(value: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def shipped(name: str) -> str:
    """A file of this package."""
    return resources.files("infopro.report").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def chart_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, in the version that altair's specifications are for."""
    altair = report_package("altair")
    converter = report_package("vl_convert", distribution="vl-convert-python")
    version = ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    known = converter.get_vegalite_versions()
    library: str = converter.javascript_bundle(vl_version=version if version in known else None)
    return library.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def write_whole(target: Path, text: str) -> None:
    """The file appears with all of the text or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # not tempfile: its files are readable by their owner alone
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
