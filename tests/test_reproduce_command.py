"""`infopro reproduce`: the same bits again, or what is not the same; stopped, resumed, in three processes."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from infopro import reproduce_command, train_command
from infopro.cli import main
from infopro.recipes import RunConfig
from infopro.reproduction import repetition_of


@pytest.fixture
def run(trained_run, tmp_path):
    """Of its own: reproductions stand beside it."""
    return shutil.copytree(trained_run, tmp_path / "run")


def change(run, file="run.json", **values):
    content = json.loads((run / file).read_text())
    (run / file).write_text(json.dumps({**content, **values}))


def reproduced(capsys, *arguments):
    capsys.readouterr()
    status = main(["reproduce", *map(str, arguments)])
    return status, capsys.readouterr()


def test_a_run_comes_out_again(run, capsys, monkeypatch):
    threads = [7]
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    status, said = reproduced(capsys, run)
    assert status == 0 and "identical, bit for bit: 2 lines of the logs" in said.out
    assert f"wrote {run}-reproduced/" in said.out and threads == [7, 1, 7]  # the run's while it is trained
    record = json.loads((run.with_name("run-reproduced") / "run.json").read_text())
    assert record["environment"]["threads"] == 1 and record["device"] == "cpu"
    assert before == {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    # the folder is taken now
    assert reproduced(capsys, run)[0] == 2


def test_what_differs_is_said_before_and_after(run, capsys):
    log = (run / "log.jsonl").read_text().splitlines()
    error = json.loads(log[1])["test_error"]
    other = json.dumps({**json.loads(log[1]), "test_error": 99.5})
    (run / "log.jsonl").write_text(f"{log[0]}\n{other}\n")
    record = json.loads((run / "run.json").read_text())
    versions = {**record["environment"]["versions"], "torch": "2.11.0"}
    change(run, data_hash="another", environment={**record["environment"], "versions": versions})
    status, said = reproduced(capsys, run, "-o", run.with_name("new"))
    assert status == 1
    assert f"different: data: another there, {record['data_hash']} here" in said.out
    assert f"different: torch: 2.11.0 there, {torch.__version__} here" in said.out
    last = said.out.splitlines()[-2:]
    assert last[0].startswith("not the same") and last[1] == f"epoch 2, test_error: 99.5 there, {error} here"


def test_a_run_that_ended_early_is_repeated_as_far_as_it_came(run, capsys):
    """And an old one, which recorded less."""
    (run / "log.jsonl").write_text((run / "log.jsonl").read_text().splitlines()[0] + "\n")
    shutil.rmtree(run / "checkpoints" / "epoch-0002")
    record = json.loads((run / "run.json").read_text())
    for name in ("launch", "device", "data_hash", "source_hash"):
        del record[name]
    del record["environment"]["variables"], record["environment"]["threads"]
    (run / "run.json").write_text(json.dumps(record))
    status, said = reproduced(capsys, run, "--device", "cpu")
    assert status == 0 and "identical, bit for bit: 1 lines of the logs" in said.out
    assert "the run did not record: infopro's source, data, threads, variables" in said.out
    assert not (run.with_name("run-reproduced") / "checkpoints" / "epoch-0002").exists()


def test_a_reproduction_that_is_stopped_goes_on(run, capsys, monkeypatch):
    real, seen = train_command.TrainingProgress.on_step, []

    def stopping(self, epoch, step):
        seen.append((epoch, step))
        if seen[-1] == (2, 1):
            os.kill(os.getpid(), signal.SIGTERM)
        real(self, epoch, step)

    monkeypatch.setattr(train_command.TrainingProgress, "on_step", stopping)
    status, said = reproduced(capsys, run)
    assert status == 143 and "identical" not in said.out
    monkeypatch.undo()
    status, said = reproduced(capsys, run, "--resume")
    assert status == 0 and "resuming after epoch 1, step 1" in said.out and "identical" in said.out


def test_a_cached_run_comes_out_again(tmp_path, capsys):
    options = "--num-modules=2 --cuts=null --limit-train=64 --limit-test=32 --batch-size=32 --epochs=1"
    run = tmp_path / "cached"
    command = ["train", "digits-demo-k4-greedy", *options.split(), "--parallel=cached", "--device=cpu"]
    assert main([*command, f"--output={run}"]) == 0
    status, said = reproduced(capsys, run)
    assert status == 0 and "identical, bit for bit: 3 lines of the logs" in said.out


def test_several_processes_are_started_again(run, capfd):
    """The run was one process: a pipeline computes what it does."""
    change(run, parallel="pipeline", processes=3, launch={"num_workers": 0, "queue": 3, "shard": False})
    status, said = reproduced(capfd, run)
    assert status == 0 and "identical, bit for bit: 2 lines of the logs" in said.out
    record = json.loads((run.with_name("run-reproduced") / "run.json").read_text())
    assert record["processes"] == 3 and record["launch"]["queue"] == 3


def test_a_failure_of_several_processes_is_one_of_this_command(run, capfd, monkeypatch):
    monkeypatch.setattr(reproduce_command, "LAUNCHER", ("json.tool",))  # which knows none of the options
    change(run, parallel="pipeline", processes=3)
    status, said = reproduced(capfd, run)
    assert status == 2 and "infopro: the run could not be trained anew: got exit status 2" in said.err


def test_options_are_those_of_the_run(run):
    change(run, "config.json", cuts=None, balance="time", num_modules=2)
    change(run, parallel="data", processes=4, cuts=["layer2.0"], launch={"shard": True, "num_workers": 1})
    found = repetition_of(run)
    options = found.options(RunConfig())
    assert found.processes == 4 and "--shard" in options and "--num-workers=1" in options
    assert "--parallel=data" in options and "--cuts=[layer2.0]" in options  # a clock might choose others


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: change(run, parallel="decoupled"), "no two decoupled runs are equal"),
        (lambda run: (run / "log.jsonl").unlink(), "the run has not finished an epoch"),
        (lambda run: shutil.rmtree(run), "the run folder does not exist"),
        (lambda run: change(run, "config.json", data="gone.npz"), "gone.npz"),
    ],
)
def test_what_cannot_be_repeated_is_one_line(run, capsys, spoil, message):
    spoil(run)
    status, said = reproduced(capsys, run)
    assert status == 2 and message in said.err and said.err.count("\n") == 1
    assert not run.with_name("run-reproduced").exists()


def test_a_run_is_not_its_own_reproduction(run, capsys, monkeypatch):
    monkeypatch.chdir(run)
    status, said = reproduced(capsys, ".", "-o", run, "--resume")
    assert status == 2 and "a run is not compared with itself" in said.err
    assert reproduce_command._output(Path("."), None) == run.resolve().with_name("run-reproduced")


def test_torchrun_is_not_wanted(run, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, said = reproduced(capsys, run)
    assert status == 2 and "start it without torchrun" in said.err


def test_a_run_under_way_is_left_alone(run, capsys, monkeypatch):
    monkeypatch.setattr("infopro.reproduction.repeating.refuse_locked", refuse)
    status, said = reproduced(capsys, run)
    assert status == 2 and "is being trained" in said.err


def refuse(path):
    from infopro.errors import BadRun

    raise BadRun("the run is being trained", got=path)
