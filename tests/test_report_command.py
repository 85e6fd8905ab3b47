"""`infopro report`: what it writes, and its one line for what it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infopro.cli import main
from infopro.recipes import RunConfig
from infopro.recipes._stored import plain
from infopro.training import RunFolder
from infopro.types import EpochRecord


def make_run(folder: Path, *, seed: int = 0, epochs_done: int = 2) -> Path:
    config = RunConfig(model="demo_resnet", data="digits-on-photos", objective="greedy", epochs=2, seed=seed)
    # an earlier version's record: nothing is predicted
    run = RunFolder.create(
        folder, configuration=plain(config), record={"command": "infopro train", "cuts": []}
    )
    for epoch in range(1, epochs_done + 1):
        losses = ({"total": 1.0},) * 4
        run.append(
            EpochRecord(epoch, 0.1, losses, 50.0, 40.0 / epoch + seed, 1.0, 40.0 / epoch + seed, 4.0, 9.0)
        )
    return folder


def test_one_run_gets_its_page_in_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.split() == f"wrote {run}/report.html: open it in a browser".split()
    text = (run / "report.html").read_text()
    assert "greedy, K = 4" in text and "20.00 %" in text


def test_several_runs_are_compared(tmp_path: Path) -> None:
    paths = [str(make_run(tmp_path / f"run{seed}", seed=seed)) for seed in (0, 1)]
    assert main(["report", *paths, "-o", str(tmp_path / "out.html"), "--title", "Both"]) == 0
    text = (tmp_path / "out.html").read_text()
    assert "<h1>Both</h1>" in text and "20.50 ± 0.71 %" in text


def test_a_hostile_name_stays_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    evil = "</script><script>alert(1)</script>"
    (run / "run.json").write_text(json.dumps({"command": evil, "cuts": [], "environment": {"device": evil}}))
    assert main(["report", str(run), "--title", evil]) == 0
    assert "<script>alert" not in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "the folder does not exist"),
        (["empty"], "the folder holds no run"),
        (["untrained"], "no epoch is finished yet"),
        (["run", "other"], "pass --output"),
        (["run", "-o", "foreign.html"], "is no infopro report"),
        (["run", "-o", "."], "is a folder"),
        (["damaged"], "cannot be read"),
        ([], "infopro report needs: runs"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run")
    make_run(tmp_path / "other", seed=1)
    make_run(tmp_path / "untrained", epochs_done=0)
    (make_run(tmp_path / "damaged") / "log.jsonl").write_text("no json\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign.html").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", *arguments]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "foreign.html").read_text() == "mine"
