"""What a run survives: signals, a second start, damage, a full disk, numbers gone wrong."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from infopro.cli import main
from infopro.training import RunFolder, checkpoints

RECIPE = "digits-demo-k4-greedy"
TINY = ["--limit-train", "128", "--limit-test", "64", "--batch-size", "64", "--device", "cpu"]
CLOCKS = ("seconds", "images_per_second")


def train(*options, output):
    return main(["train", RECIPE, *TINY, "--output", str(output), *options])


def result(run, epoch):
    """Weights, heads, optimizer state and log; what clocks say left out."""
    folder = run / f"checkpoints/epoch-{epoch:04d}"
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return (
        {file.name: file.read_bytes() for file in sorted(folder.glob("*.safetensors"))},
        [{name: value for name, value in line.items() if name not in CLOCKS} for line in log],
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """What three epochs leave."""
    run = tmp_path_factory.mktemp("finished") / "run"
    assert train("--epochs", "3", output=run) == 0
    return result(run, 3)


@pytest.fixture
def other(tmp_path):
    """A run in a process of its own that has completed an epoch of very many."""
    command = [sys.executable, "-m", "infopro", "train", RECIPE, *TINY, "--epochs", "9999"]
    process = subprocess.Popen(
        [*command, "--output", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    log = tmp_path / "run" / "log.jsonl"
    end = time.monotonic() + 100
    while not (log.is_file() and log.read_text()) and time.monotonic() < end:
        if process.poll() is not None:
            break
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()[0]
    yield process
    process.kill()
    process.communicate()


def test_a_second_start_is_refused_and_sigusr1_leaves_a_checkpoint(other, tmp_path, capsys):
    run = tmp_path / "run"
    for resume in (["--resume"], []):
        assert train("--epochs", "2", *resume, output=run) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("infopro: another process is writing to the run folder")
        assert f"got process {other.pid} on " in line
    other.send_signal(signal.SIGUSR1)
    begun = time.monotonic()
    said, _ = other.communicate(timeout=60)
    assert time.monotonic() - begun < 10
    assert other.returncode == 128 + signal.SIGUSR1
    assert f"stopped; a checkpoint is in {run}/; go on with --resume" in said.replace("\n", "")
    assert (run / ".lock").read_text() == ""
    kept = checkpoints(run / "checkpoints")
    assert kept and not list((run / "checkpoints").glob(".*"))
    assert train("--epochs", "2", "--resume", output=run) == 2
    assert "another configuration" in capsys.readouterr().err, "it is let in now"


def flip(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_damaged_checkpoint_is_passed_over_with_a_message(finished, tmp_path, capsys):
    run = tmp_path / "run"
    assert train("--epochs", "3", output=run) == 0
    folder = run / "checkpoints"
    os.truncate(folder / "epoch-0003/model.safetensors", 1000)
    capsys.readouterr()
    assert train("--epochs", "3", "--resume", output=run) == 0
    said = capsys.readouterr().out
    assert f"{folder}/epoch-0003/model.safetensors is damaged or missing: passed over, now called" in said
    assert "resuming after epoch 2" in said
    assert result(run, 3) == finished, "bit for bit, and the log has every epoch once"
    assert (folder / "epoch-0003.damaged/model.safetensors").stat().st_size == 1000


def test_where_all_are_damaged_nothing_is_changed(tmp_path, capsys):
    run = tmp_path / "run"
    assert train("--epochs", "2", output=run) == 0
    capsys.readouterr()
    for path in checkpoints(run / "checkpoints"):
        flip(path / "optimizer.safetensors")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    assert train("--epochs", "2", "--resume", output=run) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"infopro: every checkpoint in {run}/checkpoints is damaged: got ")
    assert all(f"epoch-000{epoch}/optimizer.safetensors" in line for epoch in (1, 2))
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


def test_the_last_two_are_kept_and_the_best(tmp_path):
    run = tmp_path / "run"
    assert train("--epochs", "5", output=run) == 0
    folder = RunFolder.open(run)
    errors = [record.test_error for record in folder.log()]
    best = f"epoch-{errors.index(min(errors)) + 1:04d}"
    names = [path.name for path in checkpoints(folder.checkpoint_folder)]
    assert names == sorted({best, "epoch-0004", "epoch-0005"})
    assert folder.best_checkpoint().name == best


@pytest.mark.parametrize("full_at", ["checkpoint", "log"])
def test_a_full_disk_ends_the_run_and_loses_nothing(finished, tmp_path, monkeypatch, capsys, full_at):
    import safetensors.torch

    run, files = tmp_path / "run", iter(range(99))
    save_file, append = safetensors.torch.save_file, RunFolder.append

    def save(content, file):
        if full_at == "checkpoint" and next(files) == 4:  # the second file of the second epoch
            file.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(content, file)

    def add(self, record):
        if full_at == "log" and record.epoch == 2:
            with (self.path / "log.jsonl").open("a") as stream:
                stream.write('{"epoch": 2, "learning')
            monkeypatch.setattr("os.fsync", no_space)
        append(self, record)

    def no_space(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", save)
        patch.setattr(RunFolder, "append", add)
        assert train("--epochs", "3", output=run) == 2
    monkeypatch.undo()
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written: got [Errno 28] No space left on device; free space on the disk" in line
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["epoch-0001"]
    if full_at == "log":  # what stood half in the log would be half of two lines
        text = (run / "log.jsonl").read_text()
        (run / "log.jsonl").write_text(text[: text.index("\n") + 1] + '{"epoch": 2, "learning')
    assert train("--epochs", "3", "--resume", output=run) == 0
    assert result(run, 3) == finished


def test_a_run_that_diverges_ends_with_the_module_and_the_objective(tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--epochs", "3", "--learning-rate", "1e30", "--warmup-epochs", "0"]
    assert train(*options, output=run) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("infopro: greedy: the ") and " is not finite in epoch 1" in line
    assert not checkpoints(run / "checkpoints")


def test_a_run_that_goes_back_in_vain_says_so_each_time(tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--epochs", "3", "--learning-rate", "1e30", "--warmup-epochs", "0"]
    assert train(*options, "--on-divergence", "reload", output=run) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert "is not finite in epoch 1" in line and "gone back 3 times, to 0.125 of its learning rate" in line
    assert said.out.count("back to epoch 0, on with 0.") == 3
    assert len((run / "reloads.jsonl").read_text().splitlines()) == 3


def test_clipped_gradients_are_in_the_log(tmp_path):
    run = tmp_path / "run"
    assert train("--epochs", "1", "--clip-gradients", "0.01", "--on-divergence", "skip", output=run) == 0
    (record,) = RunFolder.open(run).log()
    assert all(losses["gradient_norm"] > 0 for losses in record.losses)
    assert "skipped_steps" not in record.extra
