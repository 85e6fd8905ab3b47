"""From run folders to the page: what stands in it, in which state of the runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infopro.analysis.files import read_analysis, write_analysis
from infopro.engines.timeline import Timeline
from infopro.errors import BadRun
from infopro.report import ReportData
from infopro.run_report import report_runs, writing
from infopro.run_report.costs import Costs
from infopro.run_report.reading import read_runs

NewRun = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "costs_of", lambda methods: Costs())


def data_of(*paths: Path) -> ReportData:
    runs, notes = read_runs(paths)
    return writing.report_data(runs, notes=notes)


def test_a_study(study: Path) -> None:
    data = data_of(study)
    assert data.title == "demo_resnet20 on digits-on-photos"
    assert "in 5 ways, 10 runs in all (seeds 0, 1), for 10 epochs" in data.summary
    assert "10,000 training and 2,000 test images" in data.summary
    assert data.notes == ("Of the probes: factor source left out: it determines the label",)
    assert data.probes == {"train_images": "10000", "epochs": "12"}
    assert data.commands["k2-greedy-seed1"] == "infopro train --output k2-greedy-seed1"


def test_two_runs_compared(study: Path, tmp_path: Path) -> None:
    paths = [study / "end-to-end-seed0", study / "k2-greedy-seed0"]
    page = report_runs(paths, output=tmp_path / "deep" / "report.html")
    text = page.read_text()
    assert report_runs(paths, output=tmp_path / "again" / "report.html").read_bytes() == page.read_bytes()
    assert "From the output of layer2.0" in text and "data:image/png" in text
    assert "infopro report end-to-end-seed0 k2-greedy-seed0 --output report.html" in text
    assert str(tmp_path) not in text and str(study) not in text


def test_a_report_is_replaced_and_nothing_else(tmp_path: Path, new_run: NewRun) -> None:
    run = new_run(tmp_path / "run", objective="greedy", num_modules=2, analysed=False)
    target = tmp_path / "report.html"
    before = report_runs([run], output=target).read_bytes()
    assert report_runs([run], output=target, title="another").read_bytes() != before
    target.write_text("mine")
    with pytest.raises(BadRun, match="is no infopro report"):
        report_runs([run], output=target)
    assert target.read_text() == "mine"
    with pytest.raises(BadRun, match="is a folder"):
        report_runs([run], output=tmp_path)


def test_reconstructions_are_at_the_ends_of_modules(study: Path) -> None:
    data = data_of(study)
    blocks = {part.module for method in data.methods for part in method.reconstructions}
    assert blocks == {"layer2.0", "layer1.2", "layer2.1", "layer3.0"}
    error = [part.error for part in data.methods[0].reconstructions if part.module == "layer2.0"]
    measured = [
        b.input_cross_entropy[0]
        for seed in (0, 1)
        for b in read_analysis(study / f"end-to-end-seed{seed}").blocks
        if b.block == "layer2.0"
    ]
    assert error == [pytest.approx(np.mean(measured))]


def test_end_to_end_alone_shows_blocks_at_equal_distances(study: Path) -> None:
    (method,) = data_of(study / "end-to-end-seed0").methods
    shown = [part.module for part in method.reconstructions]
    assert len(shown) == 8 and (shown[0], shown[-1]) == ("relu", "layer3.2")


def test_other_test_images_are_left_out(tmp_path: Path, new_run: NewRun) -> None:
    new_run(tmp_path / "a", objective="greedy", num_modules=2)
    other = new_run(tmp_path / "b", objective="dgl", num_modules=2)
    analysis = read_analysis(other)
    assert analysis.images is not None
    images = replace(analysis.images, originals=255 - analysis.images.originals)
    write_analysis(other, replace(analysis, images=images), overwrite=True)
    data = data_of(tmp_path)
    assert [bool(method.reconstructions) for method in data.methods] == [True, False]
    assert any("dgl, K = 2 are of other test images" in note for note in data.notes)


def test_many_methods_show_the_reconstructions_of_one_k(tmp_path: Path, new_run: NewRun) -> None:
    for objective in ("greedy", "dgl", "infopro-softmax", "infopro-contrast"):
        for k in (2, 4):
            new_run(tmp_path / f"{objective}-{k}", objective=objective, num_modules=k)
    data = data_of(tmp_path)
    assert {m.num_modules for m in data.methods if m.reconstructions} == {4}
    assert any("Reconstructions are those of K = 4" in note for note in data.notes)


def test_runs_that_are_still_training(tmp_path: Path, new_run: NewRun) -> None:
    greedy = {"objective": "greedy", "num_modules": 2, "analysed": False}
    new_run(tmp_path / "a", seed=0, **greedy)
    new_run(tmp_path / "b", seed=1, done=3, **greedy)
    new_run(tmp_path / "c", objective="dgl", num_modules=2, analysed=False, done=2)
    data = data_of(tmp_path)
    assert [len(method.counted) for method in data.methods] == [1, 1]
    assert data.notes == (
        "Not finished: greedy, K = 2, seed 1: 3 of 10 epochs; it is left out of the means.",
        "Not finished: dgl, K = 2, seed 0: 2 of 10 epochs; its numbers so far are shown.",
    )


def test_without_any_analysis(tmp_path: Path, new_run: NewRun) -> None:
    run = new_run(tmp_path / "run", objective="greedy", num_modules=2, analysed=False)
    text = report_runs([run], output=run / "report.html").read_text()
    assert 'id="knowledge"' not in text and 'id="reconstructions"' not in text and 'id="curves"' in text
    assert "One run: greedy, K = 2." in text


def test_not_all_are_analysed(tmp_path: Path, new_run: NewRun) -> None:
    new_run(tmp_path / "a", objective="greedy", num_modules=2, images=False)
    new_run(tmp_path / "b", objective="dgl", num_modules=2, analysed=False)
    assert "Not analysed yet: b." in data_of(tmp_path).notes


def test_the_same_seed_twice_is_told_apart(tmp_path: Path, new_run: NewRun) -> None:
    for name in ("a", "b"):
        new_run(tmp_path / name, objective="greedy", num_modules=2, analysed=False)
    (method,) = data_of(tmp_path).methods
    assert [run.name for run in method.runs] == ["seed 0 (a)", "seed 0 (b)"]


def test_a_pipelines_timeline_is_shown(tmp_path: Path, new_run: NewRun) -> None:
    run = new_run(tmp_path / "run", objective="greedy", num_modules=2, analysed=False)
    for stage in range(2):
        timeline = Timeline(stage)
        for step in range(3):
            begin = 10**9 * (stage + step)
            timeline.add("forward", begin, begin + 5 * 10**8, step)
        timeline.write(run / "timeline" / f"stage-{stage}.json")
    data = data_of(run)
    assert data.timelines_of == "run" and len(data.timelines) == 2
    text = report_runs([run], output=tmp_path / "out.html").read_text()
    assert "Pipeline: run" in text and 'id="filling"' in text


def test_commands_do_not_say_where_a_run_lay(tmp_path: Path, new_run: NewRun) -> None:
    run = new_run(tmp_path / "run", objective="greedy", num_modules=2, analysed=False)
    command = "infopro train x --output /a/b/run --data-dir=/c/d 'two words'"
    (run / "run.json").write_text(json.dumps({"command": command, "cuts": []}))
    assert data_of(run).commands == {"run": "infopro train x --output run --data-dir=d 'two words'"}


def test_environments_that_differ_are_all_said(tmp_path: Path, new_run: NewRun) -> None:
    new_run(tmp_path / "a", objective="greedy", num_modules=2, analysed=False)
    other = new_run(tmp_path / "b", objective="greedy", num_modules=2, seed=1, analysed=False)
    (other / "run.json").write_text((other / "run.json").read_text().replace("a processor", "another"))
    environment = data_of(tmp_path).environment
    assert environment["device"] == "a processor; another" and environment["torch"] == "2.14.1"
