import csv
import json
import shutil

import pytest

from infopro.cli import main
from infopro.training import RunFolder

GRID = ["--objectives", "greedy", "--num-modules", "4", "--analyze", "none", "--devices", "cpu"]
SMALL = ["--epochs", "1", "--limit-train", "128", "--limit-test", "64"]


def sweep(folder, *options):
    return main(["sweep", "digits-demo", *GRID, *SMALL, "--output", str(folder), *options])


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps") / "digits"
    assert sweep(folder) == 0
    return folder


def test_a_sweep_leaves_runs_results_and_one_report(swept):
    with (swept / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["run"] for row in rows] == ["end-to-end-seed0", "k4-greedy-seed0"]
    for row in rows:
        logged = json.loads((swept / "runs" / row["run"] / "log.jsonl").read_text().splitlines()[-1])
        assert float(row["test_error_percent"]) == logged["test_error"]
    page = (swept / "report.html").read_text()
    assert "greedy" in page and "end to end" in page


def test_a_runs_own_command_repeats_it(swept):
    command = RunFolder(swept / "runs" / "k4-greedy-seed0").record["command"]
    assert command.startswith("infopro train digits-demo-k4-greedy ") and "--limit-train=128" in command


def test_finished_runs_are_not_trained_again(swept, capsys):
    log = swept / "runs" / "k4-greedy-seed0" / "log.jsonl"
    before = log.stat().st_mtime_ns
    assert sweep(swept, "--resume") == 0
    assert "2 of them trained already" in capsys.readouterr().out
    assert log.stat().st_mtime_ns == before


def test_nothing_is_overwritten(swept, capsys):
    assert sweep(swept) == 2
    assert "--resume" in capsys.readouterr().err


def test_a_run_that_fails_is_named_and_the_others_go_on(swept, tmp_path, capsys):
    folder = tmp_path / "again"
    shutil.copytree(swept / "runs" / "k4-greedy-seed0", folder / "runs" / "k4-greedy-seed0")
    (folder / "runs" / "end-to-end-seed0").mkdir(parents=True)
    (folder / "runs" / "end-to-end-seed0" / "config.json").write_text("{")
    assert sweep(folder, "--resume") == 1
    printed = capsys.readouterr().out
    assert "failed: end-to-end-seed0" in printed and "config.json cannot be read" in printed
    assert "k4-greedy-seed0" in (folder / "results.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["digits-dem"], "digits-demo"),
        (["digits-demo", "--objectives", "gredy"], "greedy"),
        (["digits-demo", "--epochs", "0"], "epochs is 0"),
        (["digits-demo", "--data", "nowhere.npz"], "nowhere.npz"),
        (["digits-demo", "--seeds", "0"], "--seeds"),
        (["digits-demo", "--jobs", "0"], "--jobs"),
        (["cifar10-resnet32"], "--download"),
    ],
)
def test_mistakes_are_one_line_before_anything_starts(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *arguments]) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1
    assert not any(tmp_path.iterdir())
