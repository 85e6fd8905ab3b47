"""Lost, hanging and stopped processes, and starts that cannot work: as a user meets them, by torchrun."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
SECONDS = 120


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """96 small images of 3 classes, as an .npz file."""
    random = np.random.default_rng(0)
    labels = np.arange(96) % 3
    pixels = random.integers(0, 100, (96, 16, 16, 3), dtype=np.uint8)
    pixels[np.arange(96), :, :, labels] += 60
    path = tmp_path_factory.mktemp("data") / "colours.npz"
    split = {
        "train_images": pixels,
        "train_labels": labels,
        "test_images": pixels[:30],
        "test_labels": labels[:30],
    }
    np.savez(path, **split)
    return path


def command(images, output, *options, epochs=4, batch_size=8):
    settings = {
        "data": images,
        "model": "cifar_resnet20",
        "num-modules": 2,
        "objective": "dgl",
        "epochs": epochs,
        "batch-size": batch_size,
        "learning-rate": 0.05,
        "schedule": "cosine",
        "warmup-epochs": 1,
        "output": output,
        "device": "cpu",
    }
    pairs = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    return ["-m", "infopro", "train", *pairs, *options]


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_FP16"}


def start(*arguments, processes=2, launcher=()):
    whole = [*TORCHRUN, f"--nproc-per-node={processes}", *launcher, *arguments]
    return subprocess.Popen(
        whole,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


def alone(*arguments):
    done = subprocess.run([sys.executable, *arguments], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def ranks_of(launcher):
    """The processes that a torchrun has started, by rank."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = re.search(r"^PPid:\s+(\d+)", (place / "status").read_text(), re.MULTILINE)
            variables = (place / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        rank = [v for v in variables if v.startswith(b"RANK=")]
        if parent and int(parent[1]) == launcher.pid and rank:
            found[int(rank[0][5:])] = int(place.name)
    return found


def wait_until(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def epochs_logged(output):
    log = output / "log.jsonl"
    return len(log.read_text().splitlines()) if log.is_file() else 0


def weights(output):
    """All tensors of the last checkpoint, whoever wrote them."""
    last = sorted((output / "checkpoints").glob("epoch-*"))[-1]
    found = {}
    for file in sorted(last.glob("*.safetensors")):
        kind = file.name.split("-")[0].split(".")[0]
        found |= {f"{kind}.{name}": tensor for name, tensor in load_file(file).items()}
    return found


def lines(output):
    clocks = ("seconds", "images_per_second")
    records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [{n: v for n, v in record.items() if n not in clocks} for record in records]


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    alone(*command(images, output))
    return output


def test_a_lost_process_is_replaced_and_nothing_is_lost(images, undisturbed, tmp_path):
    output = tmp_path / "run"
    run = start(*command(images, output, "--parallel", "pipeline"), launcher=["--max-restarts=1"])
    wait_until(lambda: epochs_logged(output) >= 2)
    os.kill(ranks_of(run)[0], signal.SIGKILL)
    status, out, err = finish(run)
    assert status == 0, err
    told = [line for line in err.splitlines() if line.startswith("infopro: ")]
    assert len(told) == 1 and told[0].startswith("infopro: module 1 (process 0) is gone; its last: "), err
    assert "resuming after epoch" in out
    assert same(weights(output), weights(undisturbed))
    assert lines(output) == lines(undisturbed)


def test_stopped_in_the_middle_of_an_epoch_it_goes_on_in_one_process(images, undisturbed, tmp_path):
    output = tmp_path / "run"
    run = start(*command(images, output, "--parallel", "pipeline"))
    wait_until(lambda: epochs_logged(output) >= 1)
    children = list(ranks_of(run).values())
    os.kill(children[-1], signal.SIGTERM)  # one is enough
    status, out, _ = finish(run)
    assert status != 0
    assert "a checkpoint is in" in out
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    alone(*command(images, output, "--resume"))
    assert same(weights(output), weights(undisturbed))
    assert lines(output) == lines(undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_leave_a_checkpoint_and_no_process(images, tmp_path, number):
    output = tmp_path / "run"
    run = start(*command(images, output, "--parallel", "pipeline"))
    wait_until(lambda: epochs_logged(output) >= 1)
    children = list(ranks_of(run).values())
    if number == signal.SIGINT:
        os.killpg(run.pid, number)  # as a terminal does
    else:
        run.send_signal(number)
    begun = time.monotonic()
    status, out, err = finish(run)
    assert status != 0
    assert time.monotonic() - begun < 20
    assert not any(is_running(child) for child in children)
    assert "a checkpoint is in" in out, err
    assert list((output / "checkpoints").glob("epoch-*"))  # inside an epoch, unless it came between two


def test_what_one_process_began_two_finish(images, undisturbed, tmp_path):
    output = tmp_path / "run"
    run = subprocess.Popen(
        [sys.executable, *command(images, output)], env=environment(), stdout=subprocess.DEVNULL
    )
    wait_until(lambda: epochs_logged(output) >= 1)
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=30) == 130
    status, _, err = finish(start(*command(images, output, "--resume", "--parallel", "pipeline")))
    assert status == 0, err
    assert same(weights(output), weights(undisturbed))
    assert lines(output) == lines(undisturbed)


def test_a_hanging_process_is_named(images, tmp_path):
    output = tmp_path / "run"
    run = start(*command(images, output, "--parallel", "pipeline", "--timeout", "6", epochs=50))
    wait_until(lambda: epochs_logged(output) >= 1)
    ranks = ranks_of(run)
    os.kill(ranks[0], signal.SIGSTOP)
    begun = time.monotonic()
    wait_until(lambda: ranks[1] not in ranks_of(run).values() or not is_running(ranks[1]))
    waited = time.monotonic() - begun
    os.kill(ranks[0], signal.SIGKILL)  # torchrun would need 30 s
    _, _, err = finish(run)
    assert re.search(
        r"infopro: module 1 \(process 0\) has given no sign of life for \d+ s; its last: ", err
    ), err
    assert waited < 6 + 10


def is_running(process):
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def test_other_data_on_one_process_is_found_at_the_start(images, tmp_path):
    other = tmp_path / "other.npz"
    content = dict(np.load(images))
    content["train_images"][0, 0, 0, 0] ^= 1
    np.savez(other, **content)
    script = tmp_path / "start.sh"
    first, second = (
        " ".join(map(str, [sys.executable, *command(data, tmp_path / "run", "--parallel", "pipeline")]))
        for data in (images, other)
    )
    script.write_text(f"#!/bin/sh\nif [ $RANK = 0 ]; then exec {first}; fi\nexec {second}\n")
    script.chmod(0o755)
    _, _, err = finish(start("--no-python", str(script)))
    told = [line for line in err.splitlines() if line.startswith("infopro: ")]
    assert len(told) == 1
    assert "the processes of this run are not alike" in told[0] and "data (" in told[0]
    assert not (tmp_path / "run").exists()


def test_without_torchrun_the_command_is_explained(images, tmp_path):
    done = subprocess.run(
        [sys.executable, *command(images, tmp_path / "run", "--parallel", "pipeline")],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "start them with: torchrun --nproc-per-node=N -m infopro train" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_in_use_is_named(images, tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        place = {
            "RANK": "0",
            "WORLD_SIZE": "2",
            "LOCAL_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        done = subprocess.run(
            [sys.executable, *command(images, tmp_path / "run", "--parallel", "pipeline", "--timeout", "5")],
            env=environment() | place,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 2
    assert re.search(rf"infopro: the port 127.0.0.1:{port} is in use", done.stderr), done.stderr


def test_starting_anew_does_not_enter_a_folder_that_was_there_before(images, undisturbed, tmp_path):
    before = lines(undisturbed)
    options = command(images, undisturbed, "--parallel", "pipeline")
    status, _, err = finish(start(*options, launcher=["--max-restarts=1"]))
    assert status != 0
    assert "the run folder exists" in err
    assert lines(undisturbed) == before


def test_several_processes_without_a_use_for_them_are_refused(images, tmp_path):
    _, _, err = finish(start(*command(images, tmp_path / "run")))
    # torchrun may end the other process before that one has said anything of its own
    told = [line for line in err.splitlines() if line.startswith("infopro: ") and "terminated" not in line]
    assert len(told) == 1
    assert "got 2 processes with --parallel none; allowed: --parallel pipeline, data or decoupled" in told[0]
    assert not (tmp_path / "run").exists()


def test_a_finished_run_of_a_pipeline_goes_on_as_replicas_and_ends_at_once(images, tmp_path):
    output = tmp_path / "run"
    for mode in ("pipeline", "data"):
        resume = ["--resume"] if output.exists() else []
        options = command(images, output, "--parallel", mode, *resume, epochs=1)
        status, out, err = finish(start(*options))
        assert status == 0, err
        assert "after the last epoch" in out
    assert len(lines(output)) == 1
