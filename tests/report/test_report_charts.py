"""Charts: titled, with units, legible in light and dark, the same rows as the results."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np
import pytest

from infopro.report import ReportData
from infopro.report._captions import TEXTS
from infopro.report._drawing import COLOURS, SHAPES
from infopro.report._images import binary_entropy
from infopro.report.charts import Figure, figures, learning_curves
from infopro.report.series import error_rows, loss_rows, memory_rows, shown_records

AXES = {
    "learning-curves": {"epoch", "test error (%)"},
    "module-losses": {"epoch", "training loss (nats)"},
    "final-errors": {"test error (%)"},
    "saved-activations": {"saved activations (MiB)"},
    "reconstruction-errors": {"decoded from the output of module", "cross-entropy (nats per pixel)"},
}


@pytest.fixture(scope="module")
def drawn(report_data: ReportData) -> dict[str, Figure]:
    return {figure.key: figure for part in figures(report_data.methods).values() for figure in part}


def encodings(spec: Any) -> Iterator[dict[str, Any]]:
    if isinstance(spec, dict):
        if "encoding" in spec:
            yield spec["encoding"]
        for value in spec.values():
            yield from encodings(value)
    elif isinstance(spec, list):
        for value in spec:
            yield from encodings(value)


def test_all_charts_are_drawn(drawn: dict[str, Figure]) -> None:
    assert set(drawn) == set(AXES) == set(TEXTS)


@pytest.mark.parametrize("key", sorted(AXES))
def test_title_axes_with_units_caption(key: str, drawn: dict[str, Figure]) -> None:
    figure = drawn[key]
    titles = {
        encoding[axis]["title"]
        for encoding in encodings(figure.spec)
        for axis in ("x", "y")
        if encoding.get(axis, {}).get("title")
    }
    assert titles == AXES[key]
    assert 0 < len(figure.spec["title"]) <= 36  # wider is cut off on a phone
    assert len(figure.caption) > 60
    assert figure.spec["description"] == figure.alt


@pytest.mark.parametrize("key", sorted(AXES))
def test_every_plotted_field_is_in_every_row(key: str, drawn: dict[str, Figure]) -> None:
    fields = {
        channel["field"]
        for encoding in encodings(drawn[key].spec)
        for channel in encoding.values()
        if isinstance(channel, dict) and "field" in channel
    } - {"label"}
    assert fields
    assert all(fields <= set(row) for row in drawn[key].rows)


def test_one_colour_per_method_everywhere(drawn: dict[str, Figure], report_data: ReportData) -> None:
    names = [method.name for method in report_data.methods]
    for figure in drawn.values():
        scales = [e["color"]["scale"] for e in encodings(figure.spec) if "scale" in e.get("color", {})]
        assert scales
        assert all(scale == {"domain": names, "range": list(COLOURS[:4])} for scale in scales)


def test_specifications_do_not_depend_on_what_was_drawn_before(report_data: ReportData) -> None:
    assert learning_curves(report_data.methods) == learning_curves(report_data.methods)
    assert len({COLOURS[i % len(COLOURS)] + SHAPES[i % len(SHAPES)] for i in range(56)}) == 56


def luminance(colour: str) -> float:
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(first: str, second: str) -> float:
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_in_light_and_dark() -> None:
    style = resources.files("infopro.report").joinpath("page.css").read_text()
    themes = [dict(re.findall(r"--(\w+): (#\w+);", block)) for block in re.findall(r":root \{[^}]*\}", style)]
    assert len(themes) == 2
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    for theme in themes:
        assert all(contrast(colour, theme["page"]) >= 3 for colour in COLOURS)
        for ink in ("ink", "soft", "link", "stop"):
            assert contrast(theme[ink], theme["page"]) >= 4.5
            assert contrast(theme[ink], theme["raised"]) >= 4.5


def test_loss_of_an_undivided_network_stands_in_the_last_panel(report_data: ReportData) -> None:
    rows = loss_rows(report_data.methods)
    assert {row["panel"] for row in rows if row["method"] == "end to end"} == {4}
    assert {row["panel"] for row in rows if row["method"] == "greedy"} == {1, 2, 3, 4}
    assert all(row["panel"] == row["module"] for row in rows if row["method"] == "greedy")


def test_memory_is_relative_to_end_to_end(report_data: ReportData) -> None:
    first, second, *_ = memory_rows(report_data.methods)
    assert (first["ratio"], first["saved_mebibytes"]) == (1.0, pytest.approx(61.2))
    assert second["ratio"] == pytest.approx(19.9 / 61.2)
    assert memory_rows(report_data.methods[1:])[0]["ratio"] is None


def test_thinned_curves_keep_first_and_last_epoch(
    report_data: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [len(records) for records in shown_records(report_data.methods).values()] == [10] * 4
    monkeypatch.setattr("infopro.report.series.MAX_ROWS", 100)
    # 20 values of the undivided network and 110 of each of the others: every 4th epoch
    epochs = [row["epoch"] for row in error_rows(report_data.methods) if row["method"] == "greedy"]
    assert epochs == [1, 5, 9, 10]


def test_method_without_records_has_no_line(report_data: ReportData) -> None:
    bare = replace(report_data.methods[0], records=())
    assert {row["method"] for row in error_rows((bare, report_data.methods[1]))} == {"greedy"}


def test_binary_entropy_of_known_pixels() -> None:
    assert binary_entropy(0.5) == pytest.approx(np.log(2))
    assert binary_entropy(np.array([0.0, 1.0])) == pytest.approx(0, abs=1e-9)
    assert binary_entropy(np.array([0.5, 1.0])) == pytest.approx(np.log(2) / 2)
