"""The GPU driver's ways to execute a step, and what it does where one fails; on a CPU."""

import subprocess
import sys
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from infopro.local import LocalModel

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "gpu"))

import gpu_execution
import gpu_safetensors
import gpu_workers
import run as gpu_run
from gpu_jobs import Job, name_of
from gpu_mosaics import LABELS
from gpu_training import Data, train

CPU = torch.device("cpu")
TINY = {"epochs": 1, "limit_train": 66, "limit_test": 64, "batch_size": 34}  # batches of 34 and of 32
EAGER = Job(kind="train", recipe="digits-demo-k4-greedy", changed=TINY)
COMPILED = Job(kind="train", recipe="digits-demo-k4-greedy", changed=TINY, execution="compiled")
NO_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")


@pytest.fixture(scope="module")
def digits():
    return Data(CPU).of(EAGER.config())


@pytest.fixture
def compiler(monkeypatch):
    """Stands in for torch's, which takes a minute; the words that it was called with."""
    words = []
    monkeypatch.setattr(LocalModel, "compile", lambda self, **options: words.append(options))
    return words


@pytest.mark.parametrize("execution", ["compiled", "graphed"])
def test_trying_out_runs_every_size_and_changes_nothing(digits, compiler, monkeypatch, execution):
    sizes, backward = [], LocalModel.backward

    def step(local, images, targets, **options):
        sizes.append(len(images))
        return backward(local, images, targets, **options)

    monkeypatch.setattr(LocalModel, "backward", step)
    job = replace(COMPILED, execution=execution)
    prepared = gpu_execution.prepare(job, digits, device=CPU)
    assert prepared.job == job and prepared.fallback is None and prepared.compile_seconds >= 0
    assert sizes == [34, 32] and compiler[-1] == gpu_execution.COMPILATIONS[execution]
    local, plain = prepared.session.local, gpu_execution.prepare(EAGER, digits, device=CPU).session.local
    assert plain.state_dict().keys() == local.state_dict().keys()
    assert all(torch.equal(local.state_dict()[name], each) for name, each in plain.state_dict().items())
    assert all(parameter.grad is None for parameter in local.parameters())


def test_what_cannot_be_compiled_is_trained_as_it_is_written(monkeypatch, tmp_path):
    def compile_(self, **options):
        raise RuntimeError("backend raised:\n no ptxas")

    monkeypatch.setattr(LocalModel, "compile", compile_)
    row = train(COMPILED, Data(CPU), device=CPU, runs=tmp_path, stop=lambda: False)
    assert row["execution"] == "eager" and row["fallback"] == "RuntimeError: backend raised: no ptxas"
    assert [path.name for path in tmp_path.iterdir()] == [EAGER.name]
    assert EAGER.name == name_of({**vars(COMPILED), **row})


def test_too_little_memory_is_no_fault_of_the_compiler(digits, compiler, monkeypatch):
    monkeypatch.setattr(gpu_execution, "_try_out", lambda session: (_ for _ in ()).throw(NO_MEMORY))
    with pytest.raises(torch.OutOfMemoryError):
        gpu_execution.prepare(COMPILED, digits, device=CPU)


def settings(tmp_path):
    return gpu_workers.Settings(
        device="cpu",
        mosaics=None,
        data_dir=None,
        runs=tmp_path / "runs",
        output=tmp_path,
        deadline=float("inf"),
        side_by_side=1,
        commit="abc",
        throughput_seconds=1.0,
    )


def fail(*words, **options):
    raise NO_MEMORY


def test_a_job_without_memory_is_a_line_and_the_next_one_gets_another_process(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_workers, "train", fail)
    doing = gpu_workers._Doing(settings(tmp_path), CPU, Data(CPU), None, lambda: False)
    row = doing.do(EAGER)
    assert row["error"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB."
    assert row["recipe"] == EAGER.recipe and row["hardware"] and row["call_seconds"] >= 0

    worker, theirs = started(monkeypatch, tmp_path)
    worker.begin(EAGER)
    theirs().send(row)
    assert worker.answer().row == row and not worker.process.is_alive()
    worker.begin(EAGER)
    assert worker.process.is_alive() and theirs().recv() == EAGER


def test_a_process_that_is_killed_is_a_line(monkeypatch, tmp_path):
    worker, theirs = started(monkeypatch, tmp_path)
    worker.begin(EAGER)
    theirs().close()
    worker.process.exitcode = -9
    assert worker.answer().row["error"] == "its process ended with status -9"


PARENT = """
import multiprocessing, os, sys, time
sys.path.append({folder!r})
from gpu_parent import end_with_parent

def child():
    end_with_parent()
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=child, daemon=True).start()
    time.sleep(600)
"""


def test_a_worker_ends_when_its_parent_is_killed(tmp_path):
    """Its pipe, which the test reads, closes."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(folder=str(Path(gpu_run.__file__).parent)))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and int(parent.stdout.readline())
        parent.kill()
        assert parent.stdout.read() == b""  # waits for the child, for ten minutes if it lived on


class Process:
    """As much of a process as a worker asks of one."""

    exitcode = None

    def __init__(self):
        self.alive, self.pid = True, None

    def is_alive(self):
        return self.alive

    def join(self, patience=None):
        self.alive = False


def started(monkeypatch, tmp_path):
    """A worker whose process is not one, and the other end of its present connection."""
    ends = []

    def start(self):
        self.connection, theirs = Pipe()
        self.process = Process()
        ends.append(theirs)

    monkeypatch.setattr(gpu_workers.Worker, "_start", start)
    return gpu_workers.Worker(settings(tmp_path)), lambda: ends[-1]


TENSORS = {
    "weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "count": torch.tensor(7),
    "half": torch.linspace(-1, 1, 5, dtype=torch.bfloat16),
    "flags": torch.tensor([True, False, True]),
    "none": torch.empty(0, 4),
}


def test_the_stand_in_writes_and_reads_the_files_of_safetensors(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    gpu_safetensors.save_file(TENSORS, ours)
    safetensors.torch.save_file(TENSORS, theirs)
    with safetensors.safe_open(ours, "pt") as of_ours, gpu_safetensors.safe_open(theirs) as of_theirs:
        for name, expected in TENSORS.items():
            for found in (of_ours.get_tensor(name), of_theirs.get_tensor(name)):
                assert found.dtype == expected.dtype and torch.equal(found, expected), name
    ours.write_bytes(b"no tensors at all")
    with pytest.raises(gpu_safetensors.SafetensorError, match="ours"):
        gpu_safetensors.safe_open(ours)


def test_the_stand_in_stands_in_only_where_nothing_is_installed(monkeypatch):
    assert not gpu_safetensors.provide()
    monkeypatch.setitem(sys.modules, "safetensors", None)  # as if it were not there
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    assert gpu_safetensors.provide()
    from safetensors import safe_open

    assert safe_open is gpu_safetensors.safe_open


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipes", "cifar10-resnet33"], "unknown recipe: got 'cifar10-resnet33'"),
        (["--recipes", "digits-*", "--set", "epoch=3"], "unknown field of a recipe: got 'epoch'"),
        (["--recipes", "digits-*", "--set", "epochs=0"], "epochs"),
        (["--mosaics", "{folder}"], "a mosaic is missing: got {folder}/data_batch_1.webp"),
        (["--from", "{folder}/nowhere"], "--from is no folder: got {folder}/nowhere"),
        (["--device", "tpu"], "device is not usable: got 'tpu'"),
    ],
)
def test_what_cannot_be_is_one_line_and_begins_nothing(words, said, tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / LABELS)
    output = tmp_path / "output"
    words = [word.format(folder=tmp_path) for word in words]
    monkeypatch.setattr(sys, "argv", ["run.py", *words, "--output", str(output)])
    with pytest.raises(SystemExit, match="2"):
        gpu_run.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert said.format(folder=tmp_path) in line and not output.exists()


@pytest.mark.parametrize(
    ("word", "said"), [("epochs", "is not NAME=JSON"), ("balance=memory", "texts need quotes")]
)
def test_a_change_is_json(word, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", "--recipes", "digits-*", "--set", word])
    with pytest.raises(SystemExit, match="2"):
        gpu_run.main()
    assert said in capsys.readouterr().err
