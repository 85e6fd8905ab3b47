"""Charts: titled, with units, legible in light and dark, the same rows as the results."""

from __future__ import annotations

import math
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
from infopro.report.page import _charts as page_charts
from infopro.report.series import error_against_k_rows, error_rows, last_records, memory_rows, shown_epochs

AXES = {
    "learning-curves": {"epoch", "test error (%)"},
    "module-losses": {"epoch", "training loss (nats)"},
    "final-errors": {"test error (%)"},
    "error-against-k": {"number of modules K", "test error (%)"},
    "saved-activations": {"saved activations (MiB)"},
    "step-memory": {"memory at the peak (MiB)"},
    "reconstruction-errors": {"decoded from the output of module", "cross-entropy (nats per pixel)"},
    "linear-separability": {"output of block", "test error of a linear probe (%)"},
    "image-information": {"output of block", "1 − cross-entropy (nats per pixel)"},
    "image-information-nats": {"output of block", "I(h, x) (nats per image)"},
    "task-information": {"output of block", "I(h, y) (nats)"},
    "nuisance-information": {"output of block", "I(h, r) (nats)"},
    "similarity": {"block of the first network", "block of the second network"},
    "gradient-angles": {"module", "angle (degrees)"},
    "gradient-norms": {"module", "norm of the gradient"},
}
CALCULATED = {"label", "low", "high", "dash", "line", "behind", "most", "panel"}  # in the chart itself


@pytest.fixture(scope="module")
def single(report_data: ReportData) -> dict[str, Figure]:
    """Of one run a method, as the demonstration has them."""
    return {figure.key: figure for part in figures(report_data.methods).values() for figure in part}


@pytest.fixture(scope="module")
def studied(study_data: ReportData) -> dict[str, Figure]:
    """Of several seeds and K, analysed."""
    return {figure.key: figure for part in page_charts(study_data).values() for figure in part}


@pytest.fixture(scope="module")
def drawn(single: dict[str, Figure], studied: dict[str, Figure]) -> dict[str, Figure]:
    return studied | single


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
    } - CALCULATED
    assert fields
    assert all(fields <= set(row) for row in drawn[key].rows)


def test_one_colour_per_method_everywhere(single: dict[str, Figure], report_data: ReportData) -> None:
    names = [method.name for method in report_data.methods]
    for figure in single.values():
        scales = [e["color"]["scale"] for e in encodings(figure.spec) if "scale" in e.get("color", {})]
        assert scales
        assert all(scale == {"domain": names, "range": list(COLOURS[:4])} for scale in scales)


def test_one_colour_per_family_for_every_k(studied: dict[str, Figure]) -> None:
    families = ["end to end", "greedy", "infopro-softmax"]
    for key, figure in studied.items():
        scales = [e["color"]["scale"] for e in encodings(figure.spec) if "scale" in e.get("color", {})]
        if key not in ("step-memory", "similarity"):
            assert scales
            assert all(scale == {"domain": families, "range": list(COLOURS[:3])} for scale in scales), key


def test_one_k_is_shown_at_a_time(studied: dict[str, Figure], single: dict[str, Figure]) -> None:
    for key in ("learning-curves", "module-losses", "linear-separability", "gradient-angles"):
        assert {"name": "shown", "value": 4} in studied[key].spec["params"], key
    assert all(p["name"] != "shown" for f in single.values() for p in f.spec.get("params", []))
    assert "error-against-k" not in single


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


def test_loss_of_an_undivided_network_stands_in_the_last_panel(
    single: dict[str, Figure], studied: dict[str, Figure]
) -> None:
    def panel(figure: Figure) -> str:
        steps = [*figure.spec.get("transform", []), *figure.spec["spec"].get("transform", [])]
        return next(step["calculate"] for step in steps if step.get("as") == "panel")

    assert panel(single["module-losses"]) == "datum.num_modules === 1 ? (4) : datum.module"
    assert "shown" in panel(studied["module-losses"])
    assert single["module-losses"].spec["usermeta"] == {"panels": 4}


def test_means_over_runs(study_data: ReportData) -> None:
    greedy = study_data.methods[1]  # seeds 0 and 2
    rows = [row for row in error_rows(study_data.methods) if row["method"] == greedy.name]
    errors = [run.records[4].test_error for run in greedy.runs]
    row = rows[4]
    assert (row["epoch"], row["runs"]) == (5, 2)
    assert row["test_error_percent"] == pytest.approx(sum(errors) / 2)
    assert row["test_error_deviation"] == pytest.approx(abs(errors[0] - errors[1]) / math.sqrt(2))
    last = next(row for row in error_against_k_rows(study_data.methods) if row["method"] == greedy.name)
    finals = [run.records[-1].test_error for run in greedy.runs]
    assert last["last_test_error_percent"] == pytest.approx(sum(finals) / 2)
    assert last["high"] - last["low"] == pytest.approx(math.sqrt(2) * 2.0)  # the seeds are 2 apart


def test_unfinished_runs_are_left_out_of_means(study_data: ReportData) -> None:
    method = study_data.methods[0]
    cut = replace(method.runs[0], records=method.runs[0].records[:3])
    mixed = replace(method, runs=(cut, *method.runs[1:]))
    assert set(last_records(mixed)) == {1, 2}
    assert {row["runs"] for row in error_rows([mixed])} == {2}
    later = replace(method.runs[1], records=method.runs[1].records[:5])
    live = replace(method, runs=(cut, later))
    assert {seed: record.epoch for seed, record in last_records(live).items()} == {0: 3, 1: 3}


def test_memory_is_relative_to_end_to_end(report_data: ReportData) -> None:
    first, second, *_ = memory_rows(report_data.methods)
    assert (first["ratio"], first["saved_mebibytes"]) == (1.0, pytest.approx(61.2))
    assert second["ratio"] == pytest.approx(19.9 / 61.2)
    assert memory_rows(report_data.methods[1:])[0]["ratio"] is None


def test_thinned_curves_keep_first_and_last_epoch(
    report_data: ReportData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [len(epochs) for epochs in shown_epochs(report_data.methods).values()] == [10] * 4
    monkeypatch.setattr("infopro.report.series.MAX_ROWS", 100)
    # 20 values of the undivided network and 110 of each of the others: every 4th epoch
    epochs = [row["epoch"] for row in error_rows(report_data.methods) if row["method"] == "greedy"]
    assert epochs == [1, 5, 9, 10]


def test_method_without_records_has_no_line(report_data: ReportData) -> None:
    bare = replace(report_data.methods[0], runs=())
    assert {row["method"] for row in error_rows((bare, report_data.methods[1]))} == {"greedy"}


def test_binary_entropy_of_known_pixels() -> None:
    assert binary_entropy(0.5) == pytest.approx(np.log(2))
    assert binary_entropy(np.array([0.0, 1.0])) == pytest.approx(0, abs=1e-9)
    assert binary_entropy(np.array([0.5, 1.0])) == pytest.approx(np.log(2) / 2)
