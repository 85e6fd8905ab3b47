import csv
import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from types import SimpleNamespace

import pytest

from infopro.cli import main
from infopro.sweep import plan_cells
from infopro.sweep_command import _beginning, _jobs
from infopro.training import RunFolder

GRID = ["--num-modules", "4", "--analyze", "none", "--devices", "cpu", "--end-to-end", "false"]
SMALL = ["--epochs", "1", "--limit-train", "128", "--limit-test", "64"]


def sweep(folder, *options, methods=("greedy",)):
    words = ["sweep", "digits-demo", "--objectives", *methods, *GRID, *SMALL]
    return main([*words, "--output", str(folder), *options])


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of two runs, by processes of their own, of which one cannot be trained."""
    folder = tmp_path_factory.mktemp("sweeps") / "digits"
    damaged = folder / "runs" / "k4-dgl-seed0"
    damaged.mkdir(parents=True)
    (damaged / "config.json").write_text("{")
    with redirect_stdout(io.StringIO()) as printed:
        status = sweep(folder, "--resume", methods=("greedy", "dgl"))
    return folder, status, printed.getvalue()


def test_a_sweep_leaves_runs_results_and_one_report(swept):
    folder, _, printed = swept
    with (folder / "results.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert row["run"] == "k4-greedy-seed0"
    logged = json.loads((folder / "runs" / row["run"] / "log.jsonl").read_text().splitlines()[-1])
    assert float(row["test_error_percent"]) == logged["test_error"]
    assert f"{logged['test_error']:.2f} (n = 1)" in printed
    assert "greedy" in (folder / "report.html").read_text()


def test_a_run_that_fails_is_named_and_the_others_go_on(swept):
    _, status, printed = swept
    assert status == 1
    assert "failed: k4-dgl-seed0" in printed and "config.json cannot be read" in printed


def test_a_runs_own_command_repeats_it(swept):
    command = RunFolder(swept[0] / "runs" / "k4-greedy-seed0").record["command"]
    assert command.startswith("infopro train digits-demo-k4-greedy ") and "--limit-train=128" in command


def test_finished_runs_are_not_trained_again(swept, capsys):
    log = swept[0] / "runs" / "k4-greedy-seed0" / "log.jsonl"
    before = log.stat().st_mtime_ns
    assert sweep(swept[0], "--resume") == 0
    assert "1 of them trained already" in capsys.readouterr().out
    assert log.stat().st_mtime_ns == before


def test_nothing_is_overwritten(swept, capsys):
    assert sweep(swept[0]) == 2
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["digits-dem"], "digits-demo"),
        (["digits-demo", "--objectives", "gredy"], "greedy"),
        (["digits-demo", "--epochs", "0"], "epochs is 0"),
        (["digits-demo", "--data", "nowhere.npz"], "nowhere.npz"),
        (["digits-demo", "--seeds", "0"], "seeds"),
        (["digits-demo", "--jobs", "0"], "jobs"),
        (["cifar10-resnet32"], "--download"),
    ],
)
def test_mistakes_are_one_line_before_anything_starts(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *arguments]) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_networks_with_a_class_for_every_pixel_are_trained_and_not_analysed(tmp_path):
    masks = {"model": "torchvision/lraspp_mobilenet_v3_large", "data": "digits-on-photos-masks"}
    options = SimpleNamespace(analyze="all", num_workers=0, data_dir=None, probe_images=None)
    for overrides, analysed in ((masks, 0), ({}, 2)):
        family = None if overrides else "digits-demo"
        cells = plan_cells(
            family, methods=["greedy"], num_modules=[2], seeds=range(1), end_to_end=True, overrides=overrides
        )
        jobs = _jobs(cells, tmp_path, options)
        assert len(cells) == 2 and len(jobs) == 2 + analysed
        said = "not analysed" in " ".join(_beginning(cells, jobs, [], tmp_path))
        assert said == (not analysed)


def test_a_second_sweep_in_the_same_folder_is_refused(tmp_path, capsys):
    script = "import sys, time; from pathlib import Path; from infopro.training import locked\n"
    script += "with locked(Path(sys.argv[1]), what='sweep'):\n    print(flush=True); time.sleep(60)"
    command = [sys.executable, "-c", script, str(tmp_path / "sweep")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        try:
            other.stdout.readline()
            for resume in ([], ["--resume"]):
                assert main(["sweep", "digits-demo", "--output", str(tmp_path / "sweep"), *resume]) == 2
                (line,) = capsys.readouterr().err.splitlines()
                assert line.startswith("infopro: another process is writing to the sweep folder")
                assert f"got process {other.pid} on " in line
        finally:
            other.kill()
    assert [file.name for file in (tmp_path / "sweep").iterdir()] == [".lock"]
