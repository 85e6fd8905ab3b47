"""Rows of the information charts against what the made-up analyses say."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from infopro.report import MethodResult, ReportData, information
from infopro.report.spread import t_quantile


def named(rows: list[dict[str, Any]], method: str, block: str, **fields: Any) -> dict[str, Any]:
    found = [
        row
        for row in rows
        if row["method"] == method
        and row["block"] == block
        and all(row[name] == value for name, value in fields.items())
    ]
    assert len(found) == 1
    return found[0]


def test_mean_and_interval_over_runs(study_data: ReportData) -> None:
    row = named(information.linear_rows(study_data.methods), "infopro-softmax, K = 4", "layer1.1")
    half = t_quantile(2) * 1.0 / math.sqrt(3)  # seeds 0, 1, 2 shift the error by their number
    assert (row["test_error_percent"], row["estimates"]) == (31.0, 3)
    assert (row["low"], row["high"]) == (pytest.approx(31 - half), pytest.approx(31 + half))
    two = named(information.linear_rows(study_data.methods), "greedy, K = 4", "layer1.1")
    assert (two["test_error_percent"], two["estimates"]) == (31.0, 2)
    assert two["high"] - 31 == pytest.approx(12.706205 * math.sqrt(2) / math.sqrt(2), rel=1e-6)


def test_one_run_has_the_interval_of_its_probe_seeds(study_data: ReportData) -> None:
    method = study_data.methods[0]
    analysis = method.runs[0].analysis
    assert analysis is not None
    blocks = tuple(replace(b, linear_error=(20.0, 22.0)) for b in analysis.blocks)
    run = replace(method.runs[0], analysis=replace(analysis, blocks=blocks))
    row = information.linear_rows([replace(method, runs=(run,))])[0]
    assert (row["test_error_percent"], row["estimates"]) == (21.0, 2)
    assert row["high"] == pytest.approx(21 + t_quantile(1))
    single = replace(analysis, blocks=tuple(replace(b, linear_error=(20.0,)) for b in analysis.blocks))
    alone = information.linear_rows([replace(method, runs=(replace(run, analysis=single),))])[0]
    assert (alone["low"], alone["high"]) == (None, None)


def test_information_about_the_image(study_data: ReportData) -> None:
    methods = study_data.methods[:1]
    score = named(information.score_rows(methods), "end to end", "stem")
    nats = named(information.image_rows(methods), "end to end", "stem")
    entropy = 0.5 + (10 + 1) / 1000  # mean over seeds 0 to 2
    assert score["score"] == pytest.approx(1 - entropy)
    assert nats["information_nats"] == pytest.approx((0.6 - entropy) * 3072)
    assert {row["block"] for row in information.score_rows(methods)}.isdisjoint({"input"})


def test_information_about_the_class_by_capacity(study_data: ReportData) -> None:
    rows = information.task_rows(study_data.methods)
    large = named(rows, "greedy, K = 2", "layer2.0", capacity="large")
    small = named(rows, "greedy, K = 2", "layer2.0", capacity="small")
    assert large["information_nats"] == pytest.approx(41 / 30)
    assert small["information_nats"] == pytest.approx(41 / 60)
    assert large["test_error_percent"] == 41.0
    assert {row["label_entropy_nats"] for row in rows} == {math.log(10)}


def test_each_factor_beside_its_entropy(study_data: ReportData) -> None:
    rows = information.nuisance_rows(study_data.methods)
    assert {(row["panel"], row["entropy_nats"]) for row in rows} == {("photo", 0.7), ("digit left", 2.0)}


def test_ends_of_modules(study_data: ReportData) -> None:
    rows = information.linear_rows(study_data.methods)
    ends = {
        method: [row["block"] for row in rows if row["method"] == method and row["ends_module"]]
        for method in ("end to end", "greedy, K = 2", "greedy, K = 4")
    }
    assert ends == {
        "end to end": [],
        "greedy, K = 2": ["layer1.0"],
        "greedy, K = 4": ["stem", "layer1.0", "layer1.1"],
    }


def test_blocks_of_different_networks_are_numbered(study_data: ReportData) -> None:
    assert information.block_names(study_data.methods)[:2] == ["input", "stem"]
    first = study_data.methods[0]
    analysis = first.runs[0].analysis
    assert analysis is not None
    other = replace(analysis, blocks=tuple(replace(b, block=f"x{b.depth}") for b in analysis.blocks))
    strange = replace(first, name="other", runs=(replace(first.runs[0], analysis=other),))
    assert information.block_names([first, strange]) == ["0", "1", "2", "3", "4"]


def test_angles_over_batches_and_runs(study_data: ReportData) -> None:
    rows = information.angle_rows(study_data.methods)
    assert "end to end" not in {row["method"] for row in rows}
    first, last = [row for row in rows if row["method"] == "greedy, K = 2"]
    assert (first["angle_degrees"], first["batches"]) == (85.0, 4)
    deviation = math.sqrt(4 * 25 / 3)
    assert (first["low"], first["high"]) == (pytest.approx(85 - deviation), pytest.approx(85 + deviation))
    assert last["angle_degrees"] == 0.0
    norms = {row["gradient"]: row["norm"] for row in information.norm_rows(study_data.methods)}
    assert norms == {"local": 2.0, "end to end": pytest.approx(0.2)}


def test_an_angle_that_does_not_exist_is_left_out(study_data: ReportData) -> None:
    method = study_data.methods[1]
    analysis = method.runs[0].analysis
    assert analysis is not None
    lost = tuple(replace(g, angle_degrees=(math.nan, math.nan)) for g in analysis.gradients)
    run = replace(method.runs[0], analysis=replace(analysis, gradients=lost))
    assert information.angle_rows([replace(method, runs=(run,))]) == []


def test_similarity_names_the_networks(study_data: ReportData) -> None:
    rows = information.similarity_rows(study_data.methods[:2])
    assert {row["pair"] for row in rows} == {
        "end to end",
        "end to end and elsewhere",
        "greedy, K = 2",
        "greedy, K = 2 and elsewhere",
    }
    own = [row for row in rows if row["pair"] == "end to end"]
    assert len(own) == 16 and {(row["cka"], row["runs"]) for row in own} == {(0.5, 3)}


def test_many_blocks_are_thinned(study_data: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(information, "MAX_ROWS", 20)  # of the 10 x 16 that there are
    assert information.similarity_stride(study_data.methods) == 3
    rows = information.similarity_rows(study_data.methods)
    assert {row["row"] for row in rows} == {row["column"] for row in rows} == {"stem", "layer2.0"}


def test_a_run_on_the_page_is_called_by_its_method(study_data: ReportData) -> None:
    first, second = study_data.methods[:2]
    other: MethodResult = replace(second, runs=(replace(second.runs[0], folder="elsewhere"),))
    pairs = {row["pair"] for row in information.similarity_rows([first, other])}
    assert "end to end and greedy, K = 2" in pairs


def test_without_analysis_there_are_no_rows(report_data: ReportData) -> None:
    assert information.linear_rows(report_data.methods) == []
    assert information.similarity_rows(report_data.methods) == []
    assert information.block_names(report_data.methods) == []
