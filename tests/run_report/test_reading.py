"""Which runs are found in folders, and what is wrong with folders that have none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from infopro.errors import BadRun
from infopro.run_report.reading import read_runs

NewRun = Callable[..., Path]


def names(paths: list[Path]) -> list[str]:
    return [run.path.name for run in read_runs(paths)[0]]


def test_a_folder_of_runs_stands_for_all_of_them(study: Path) -> None:
    found = names([study.parent])
    assert len(found) == 10 and found == sorted(found)


def test_every_run_once_in_the_order_given(study: Path) -> None:
    last = study / "k4-greedy-seed1"
    assert names([last, study, last])[:2] == ["k4-greedy-seed1", "end-to-end-seed0"]
    assert len(names([last, study, last])) == 10


def test_what_a_run_holds(study: Path) -> None:
    (run,), notes = read_runs([study / "k4-greedy-seed1"])
    assert (run.config.objective, run.config.seed, len(run.records)) == ("greedy", 1, 10)
    assert run.cuts == ("layer1.2", "layer2.1", "layer3.0")
    assert run.analysis is not None and run.analysis.images is not None
    assert notes == []


def test_runs_without_an_epoch_are_left_out_of_a_folder_but_refused_by_name(
    tmp_path: Path, new_run: NewRun
) -> None:
    new_run(tmp_path / "a", objective="greedy", num_modules=2, analysed=False)
    empty = new_run(tmp_path / "b", objective="greedy", num_modules=4, analysed=False, done=0)
    runs, notes = read_runs([tmp_path])
    assert [run.path.name for run in runs] == ["a"]
    assert notes == ["b has not finished an epoch yet, and is left out."]
    with pytest.raises(BadRun, match=r"no epoch is finished yet: got .*b; train at least one"):
        read_runs([tmp_path, empty])


@pytest.mark.parametrize(("name", "message"), [("none", "does not exist"), ("empty", "holds no run")])
def test_no_run(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadRun, match=message):
        read_runs([tmp_path / name])


def test_damaged_files_are_named(tmp_path: Path, new_run: NewRun) -> None:
    run = new_run(tmp_path / "run", objective="greedy", num_modules=2, images=False)
    file = run / "analysis" / "analysis.json"
    file.write_text(file.read_text()[:100])
    with pytest.raises(BadRun, match=r"analysis\.json is damaged.*--overwrite"):
        read_runs([run])
    file.write_text("{}")
    (run / "log.jsonl").write_text("no json\n")
    with pytest.raises(BadRun, match=r"line 1 of .*log\.jsonl cannot be read"):
        read_runs([run])
