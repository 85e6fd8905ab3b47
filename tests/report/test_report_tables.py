"""The terminal's table, the numbers as text, and the checks before anything is drawn."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from infopro.errors import BadInput
from infopro.report import ReportData, _formats, render_report, result_table
from infopro.report.charts import figures
from infopro.report.tables import result_cells, result_columns


def printed(data: ReportData, width: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(result_table(data.methods, title="Result"))
    return out.getvalue()


def test_cells(report_data: ReportData) -> None:
    cells = result_cells(report_data.methods[1], report_data.methods)
    assert cells == ("greedy", "4", "21.67 %", "21.54 % (epoch 9)", "19.9 MiB", "0.33 ×", "44.0 s")
    assert len(cells) == len(result_columns(report_data.methods))


def test_cells_of_several_runs(study_data: ReportData) -> None:
    columns = result_columns(study_data.methods)
    cells = dict(zip(columns, result_cells(study_data.methods[1], study_data.methods), strict=True))
    finals = [run.records[-1].test_error for run in study_data.methods[1].runs]
    mean = sum(finals) / 2
    assert cells["test error"] == f"{mean:.2f} ± {math.sqrt(2):.2f} %"
    assert cells["runs"] == "2"
    others = {run.seed: run.records[-1].test_error for run in study_data.methods[0].runs}
    difference = (finals[0] - others[0] + finals[1] - others[2]) / 2
    assert cells["paired difference"] == f"{difference:+.2f} ± 0.00 (n = 2)"  # both seeds shift alike
    assert "saved activations" not in columns
    assert result_cells(study_data.methods[0], study_data.methods)[4] == "–"


def test_table_without_a_terminal_is_plain_text(report_data: ReportData) -> None:
    text = printed(report_data, width=160)
    assert "\x1b" not in text
    for method in report_data.methods:
        assert all(cell in text for cell in result_cells(method, report_data.methods))


def test_eighty_columns_cut_no_digit(report_data: ReportData) -> None:
    text = printed(report_data, width=80)
    assert "…" not in text
    assert "reconstruction" in text
    assert max(map(len, text.splitlines())) <= 80
    assert all(value in text for value in ("21.67 %", "21.54 % (epoch 9)", "19.9 MiB", "0.33 ×", "44.0 s"))


def test_name_in_brackets_is_no_markup(report_data: ReportData) -> None:
    method = replace(report_data.methods[0], name="[red]run[/red]")
    assert "[red]run[/red]" in printed(replace(report_data, methods=(method,)))


def test_method_that_was_not_trained(report_data: ReportData) -> None:
    bare = replace(report_data.methods[1], runs=())
    assert result_cells(bare, (bare,))[2:6] == ("–", "–", "19.9 MiB", "–")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (_formats.percent(7.5), "7.50 %"),
        (_formats.percent(float("nan")), "not a number"),
        (_formats.mebibytes(2**20), "1.00 MiB"),
        (_formats.mebibytes(99.96 * 2**20), "100 MiB"),
        (_formats.mebibytes(2048 * 2**20), "2,048 MiB"),
        (_formats.seconds(119.94), "119.9 s"),
        (_formats.seconds(185), "3 min 05 s"),
        (_formats.seconds(3 * 3600 + 62), "3 h 01 min"),
        (_formats.shape((16, 8, 8)), "16 × 8 × 8"),
        (_formats.operations(29_196_288), "29.2 MFLOP"),
        (_formats.operations(4_089_284_608), "4.09 GFLOP"),
        (_formats.with_deviation(8.0, None, "%"), "8.00 %"),
        (_formats.with_deviation(float("nan"), None, "%"), "not a number"),
    ],
)
def test_numbers_carry_units(text: str, expected: str) -> None:
    assert text == expected


def test_all_problems_at_once(report_data: ReportData) -> None:
    first = report_data.methods[0]
    part = replace(first.reconstructions[0], images=first.reconstructions[0].images[:3])
    broken = replace(
        report_data,
        methods=(first, replace(first, reconstructions=(part, part))),
        captions=("7",),
        originals=report_data.originals.astype(np.float32),
    )
    with pytest.raises(BadInput) as caught:
        render_report(broken)
    message = str(caught.value)
    for problem in (
        "'end to end' 2 times",
        "originals of type float32",
        "1 captions for 8",
        "[3, 32, 32, 3]",
    ):
        assert problem in message
    assert "'module 1' 2 times" in message


def test_a_run_twice(study_data: ReportData) -> None:
    method = study_data.methods[0]
    with pytest.raises(BadInput, match="run 'seed 0' of 'end to end' 2 times"):
        render_report(replace(study_data, methods=(replace(method, runs=(method.runs[0],) * 2),)))


def test_no_method(report_data: ReportData) -> None:
    with pytest.raises(BadInput, match="no method"):
        render_report(replace(report_data, methods=()))


def test_reconstructions_need_originals(report_data: ReportData) -> None:
    with pytest.raises(BadInput, match="no originals"):
        render_report(replace(report_data, originals=report_data.originals[:0], captions=()))


def test_errors_of_masks_are_named_by_what_they_are_the_rest_of(report_data: ReportData) -> None:
    methods = [
        replace(
            method,
            runs=tuple(
                replace(run, records=tuple(replace(r, extra={"mean_iou": 1.0}) for r in run.records))
                for run in method.runs
            ),
        )
        for method in report_data.methods
    ]
    row = dict(zip(result_columns(methods), result_cells(methods[0], methods), strict=True))
    assert row["test error"] == "8.74 %" and row["mIoU"] == "91.26 %"
    assert "mIoU" not in result_columns(report_data.methods)
    drawn = {figure.key: figure for part in figures(methods).values() for figure in part}
    for key in ("learning-curves", "final-errors"):
        assert "test error: 100 − mIoU (%)" in json.dumps(drawn[key].spec, ensure_ascii=False), key
