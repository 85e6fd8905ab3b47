"""The GPU driver as a command, on a CPU: its budget, its lines, its end by a signal."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "gpu"))

from gpu_jobs import read

ROOT = Path(__file__).parents[2]
RUN = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "run.py"), "--device=cpu", "--seeds=1"]
TINY = ["limit_train=128", "limit_test=64"]
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.partition(".")[0])
sys.meta_path.insert(0, Blocker())
"""
OPTIONAL = {"jsonargparse", "altair", "jinja2", "segmentation_models_pytorch", "timm", "tensorboard"}


def environment(folder=None):
    """Of a machine with one thread, where infopro is not installed but lies in the source tree."""
    paths = [str(folder)] if folder else []
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([*paths, str(ROOT / "src")])}


def blocking(folder, names):
    """A folder whose sitecustomize hides packages from every process."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCKER.format(blocked=names))
    return environment(folder)


def run(*words, **options):
    found = subprocess.run([*RUN, *words], capture_output=True, text=True, timeout=900, **options)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_two_side_by_side_without_optional_packages(tmp_path):
    """Not even safetensors; one recipe's data are not there, and the next one runs."""
    words = ["--recipes", "cifar10-resnet32-k4-dgl", "digits-demo-k4-[gd]*", "--set", "epochs=2", *TINY]
    words += ["--side-by-side=2", "--seconds=600", "--commit=abc", "--data-dir", str(tmp_path / "none")]
    bare = blocking(tmp_path / "site", OPTIONAL | {"safetensors"})
    said = run(*words, "--output", str(tmp_path), env=bare)
    assert "2 finished, 1 failed, 0 to be gone on with" in said
    rows = {row["recipe"]: row for row in read(tmp_path / "gpu.jsonl")}
    failed = rows.pop("cifar10-resnet32-k4-dgl")
    assert failed["error"].startswith("BadData: cifar10 is not in the data folder")
    assert rows.keys() == {"digits-demo-k4-greedy", "digits-demo-k4-dgl"}
    for row in rows.values():
        assert row["epochs"] == 2 and row["side_by_side"] == 2 and row["commit"] == "abc"
        assert (
            row["test_error"] >= row["best_test_error"] > 0 and row["versions"]["torch"] and row["hardware"]
        )
    assert len((tmp_path / "gpu.jsonl").read_text().splitlines()) == 3
    assert said.split("ended")[0].count("begins") == 2, "both run at once"


def test_a_signal_leaves_what_the_next_call_finishes(tmp_path):
    """Also where the first machine has no safetensors: the files are the same."""
    bare = blocking(tmp_path / "site", {"safetensors"})
    out, work = tmp_path / "out", tmp_path / "work"
    words = ["--recipes", "digits-demo-k4-greedy", "--set", "epochs=12", *TINY, "--seconds=600"]
    first = subprocess.Popen(
        [*RUN, *words, "--output", str(out), "--work", str(work)],
        env=bare,
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: list(work.glob("*/log.jsonl")))
    first.send_signal(signal.SIGTERM)
    said, _ = first.communicate(timeout=600)
    assert first.returncode == 0 and "0 finished, 0 failed, 1 to be gone on with" in said
    assert read(out / "gpu.jsonl") == [] and all(path.is_file() for path in out.iterdir())

    said = run(*words, "--output", str(tmp_path / "next"), "--from", str(out), env=environment())
    assert "1 finished, 0 failed, 0 to be gone on with" in said
    (row,) = read(tmp_path / "next" / "gpu.jsonl")
    assert row["epochs"] == 12 and "error" not in row


def wait_for(found, seconds=600):
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_budget_ends_what_would_not_end(tmp_path):
    words = ["--recipes", "digits-demo-k4-greedy", "--set", "epochs=100000", *TINY, "--seconds=16"]
    said = run(*words, "--output", str(tmp_path), env=environment())
    seconds = [float(line.split(" s ")[0]) for line in said.splitlines() if " s  " in line]
    assert max(seconds, default=0.0) < 16  # of the driver's own clock
    assert "0 finished, 0 failed" in said and read(tmp_path / "gpu.jsonl") == []


def test_throughput_is_measured_together(tmp_path):
    words = ["--recipes", "digits-demo-k4-greedy", "--set", "epochs=100000", *TINY]
    words += ["--measure-side-by-side", "2", "--throughput-seconds=1", "--output", str(tmp_path)]
    said = run(*words, env=environment())
    (row,) = read(tmp_path / "gpu.jsonl")
    assert row["kind"] == "throughput" and row["changed"]["side_by_side"] == row["side_by_side"] == 2
    together = f"2 side by side: {row['images_per_second']:.0f} images/s together"
    assert row["images_per_second"] > 0 and said.endswith(f"{together}\nbest: --side-by-side 2\n")
