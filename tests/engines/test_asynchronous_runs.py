"""Cached and decoupled runs from the command line: their folders, going on, and what is refused."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from infopro.cli import main

EPOCHS, MODULES = 2, 3
CLOCKS = ("seconds", "images_per_second")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """60 small images of 3 classes, as an .npz file."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    pixels = random.integers(0, 100, (60, 16, 16, 3), dtype=np.uint8)
    pixels[np.arange(60), :, :, labels] += 60
    path = tmp_path_factory.mktemp("data") / "colours.npz"
    test = {"test_images": pixels[:21], "test_labels": labels[:21]}
    np.savez(path, train_images=pixels, train_labels=labels, **test)
    return path


def command(images, output, *options, parallel="cached", modules=MODULES):
    settings = {
        "data": images,
        "model": "cifar_resnet20",
        "num-modules": modules,
        "objective": "infopro-softmax",
        "epochs": EPOCHS,
        "batch-size": 16,
        "learning-rate": 0.05,
        "schedule": "cosine",
        "warmup-epochs": 1,
        "output": output,
        "device": "cpu",
        "parallel": parallel,
    }
    return [
        "train",
        *(text for name, value in settings.items() for text in (f"--{name}", str(value))),
        *options,
    ]


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def timeless(file):
    return [{n: v for n, v in line.items() if n not in CLOCKS} for line in lines(file)]


def checkpoints(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def tensors(run):
    last = run / "checkpoints" / checkpoints(run)[-1]
    return {
        f"{file.name}/{name}": tensor
        for file in last.glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }


@pytest.fixture(scope="module")
def cached(images, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "cached"
    assert main(command(images, run, "--views", "2")) == 0
    return run


def require_same(run, other):
    assert checkpoints(run) == checkpoints(other)
    found, expected = tensors(run), tensors(other)
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    for name in ("modules.jsonl", "log.jsonl"):
        assert timeless(run / name) == timeless(other / name)


def test_a_cached_run_leaves_every_epoch_of_every_module(cached):
    found = lines(cached / "modules.jsonl")
    order = [(module, epoch) for module in range(1, MODULES + 1) for epoch in range(1, EPOCHS + 1)]
    assert [(line["module"], line["epoch"]) for line in found] == order
    tested = [line["test_error"] is not None for line in found]
    assert tested[-EPOCHS:] == [True] * EPOCHS
    assert all(set(line["losses"]) == {"reconstruction", "task", "total"} for line in found[:-EPOCHS])
    assert all(set(line["losses"]) == {"task", "total"} for line in found[-EPOCHS:])


def test_the_log_of_a_cached_run_has_the_epochs_of_the_last_module(cached):
    log, modules = lines(cached / "log.jsonl"), lines(cached / "modules.jsonl")
    assert [line["epoch"] for line in log] == [1, 2]
    for line, last in zip(log, modules[-EPOCHS:], strict=True):
        finished = [modules[EPOCHS * done - 1]["losses"] for done in range(1, MODULES)]
        assert line["losses"] == [*finished, last["losses"]]
        assert line["test_error"] == last["test_error"]
    assert log[-1]["best_test_error"] == min(line["test_error"] for line in log)


def test_a_cached_run_leaves_two_checkpoints_and_no_features(cached):
    assert checkpoints(cached) == ["epoch-0005", "epoch-0006"]
    record = json.loads((cached / "run.json").read_text())
    assert record["parallel"] == "cached" and record["processes"] == 1
    assert not list(cached.glob("features/*"))
    of_optimizer = [name for name in tensors(cached) if name.startswith("optimizer")]
    assert of_optimizer and all("layer1" not in name for name in of_optimizer)  # the last module's


def test_a_cached_run_trains_every_module(cached):
    from infopro import recipes

    config = recipes.from_plain({**json.loads((cached / "config.json").read_text()), "cuts": None})
    data = recipes.prepare_data(config, data_dir=None, download=False, device=torch.device("cpu"))
    before = recipes.prepare(config, data, device=torch.device("cpu")).local
    after = tensors(cached)
    same = [
        name
        for name, p in before.model.named_parameters()
        if torch.equal(p, after[f"model.safetensors/{name}"])
    ]
    assert same == []


def test_evaluate_gives_the_error_that_a_cached_run_logged(cached, capsys):
    assert main(["evaluate", str(cached), "--device", "cpu"]) == 0
    error = lines(cached / "log.jsonl")[-1]["test_error"]
    assert f"epoch {EPOCHS * MODULES}: test error {error:.2f} %" in capsys.readouterr().out


@pytest.mark.parametrize("module, epoch", [(1, 1), (2, 2), (3, 2)])
def test_interrupted_after_an_epoch_of_a_module_a_cached_run_goes_on_bit_for_bit(
    cached, images, tmp_path, monkeypatch, module, epoch
):
    from infopro import train_command

    def interrupt(self, record):
        if (record.module, record.epoch) == (module, epoch):
            raise KeyboardInterrupt

    monkeypatch.setattr(train_command._Lines, "module_epoch", interrupt)
    run, options = tmp_path / "run", ("--views", "2")
    assert main(command(images, run, *options)) == 130
    monkeypatch.undo()
    assert len(lines(run / "modules.jsonl")) == (module - 1) * EPOCHS + epoch
    assert main(command(images, run, *options, "--resume")) == 0
    require_same(run, cached)


@pytest.mark.parametrize("number, module, epoch", [(signal.SIGINT, 1, 1), (signal.SIGTERM, 2, 2)])
def test_a_signal_in_the_middle_of_an_epoch_stops_a_cached_run_which_then_goes_on(
    cached, images, tmp_path, monkeypatch, capsys, number, module, epoch
):
    from infopro.recipes import _asynchronous

    real = _asynchronous.train_cached

    def signalled(*arguments, **options):
        def step(*place):
            if place == (module, epoch, 2):
                os.kill(os.getpid(), number)

        return real(*arguments, on_step=step, **options)

    monkeypatch.setattr(_asynchronous, "train_cached", signalled)
    run, options = tmp_path / "run", ("--views", "2")
    assert main(command(images, run, *options)) == 128 + number
    assert "stopped; " in capsys.readouterr().out
    monkeypatch.undo()
    assert main(command(images, run, *options, "--resume")) == 0
    require_same(run, cached)


def test_a_finished_cached_run_resumes_to_itself(cached, images, capsys):
    files = ("modules.jsonl", "log.jsonl", "checkpoints/epoch-0006/state.json")
    before = [(cached / name).read_bytes() for name in files]
    assert main(command(images, cached, "--views", "2", "--resume")) == 0
    assert [(cached / name).read_bytes() for name in files] == before
    printed = capsys.readouterr().out
    assert f"test error {lines(cached / 'log.jsonl')[-1]['test_error']:.2f} % after the last epoch" in printed


def test_a_cached_run_does_not_go_on_with_other_views(cached, images, capsys):
    assert main(command(images, cached, "--views", "1", "--resume")) == 2
    assert "views 1 (run: 2)" in capsys.readouterr().err


def torchrun(arguments, processes=MODULES):
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
    ]
    variables = {"OMP_NUM_THREADS": "1", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_FP16"}
    return subprocess.run(
        [*launcher, "-m", "infopro", *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def decoupled(images, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "decoupled"
    done = torchrun(command(images, run, "--replay", "2", "--clip-gradients", "0.5", parallel="decoupled"))
    assert done.returncode == 0, done.stderr
    return run, done.stdout


def test_each_module_of_a_decoupled_run_leaves_its_epochs_and_how_fresh_its_batches_were(decoupled):
    run, _ = decoupled
    names = {"mean_staleness", "most_staleness", "mean_uses", "unread", "unsent"}
    for module in range(1, MODULES + 1):
        found = lines(run / f"module-{module}.jsonl")
        assert [(line["module"], line["epoch"]) for line in found] == [(module, 1), (module, 2)]
        for line in found:
            assert set(line["freshness"]) == names
            assert (line["freshness"]["mean_uses"] >= 1) == (module > 1)
            assert all(np.isfinite(value) and value > 0 for value in line["losses"].values())
            assert "gradient_norm" in line["losses"]  # before it was clipped


def test_a_decoupled_run_logs_one_test_and_says_it(decoupled):
    run, printed = decoupled
    (record,) = lines(run / "log.jsonl")
    assert record["epoch"] == EPOCHS and len(record["losses"]) == MODULES
    assert f"test error {record['test_error']:.2f} % after the last epoch" in printed
    last = lines(run / f"module-{MODULES}.jsonl")[-1]
    assert record["losses"][-1] == pytest.approx(last["losses"])
    assert 0 <= record["train_error"] <= 100
    assert len(re.findall(r"module [23]/3  epoch +[12]/2 .* a batch is used \d", printed)) == 4


def test_evaluate_reads_what_the_modules_of_a_decoupled_run_have_saved(decoupled, capsys):
    run, _ = decoupled
    assert checkpoints(run) == [f"epoch-{EPOCHS:04d}"]
    assert main(["evaluate", str(run), "--device", "cpu"]) == 0
    (record,) = lines(run / "log.jsonl")
    assert f"epoch {EPOCHS}: test error {record['test_error']:.2f} %" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, settings, message",
    [
        ((), {"modules": 1}, "parallel is 'cached' but num_modules is 1"),
        (("--views", "-1"), {}, "views is -1, allowed: 0 or more"),
        (("--replay", "0"), {"parallel": "decoupled"}, "replay is 0, allowed: 1 or more"),
        (("--gather-contrast", "true"), {}, "gather_contrast is set but parallel is 'cached', allowed: "),
        (
            ("--synchronise-batch-norm", "true"),
            {"parallel": "decoupled"},
            "synchronise_batch_norm is set but parallel is 'decoupled', allowed: ",
        ),
        ((), {"parallel": "decoupled"}, "start them with: torchrun --nproc-per-node="),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(
    images, tmp_path, capsys, options, settings, message
):
    if settings.get("modules") == 1:
        options = (*options, "--objective", "end-to-end")
    assert main(command(images, tmp_path / "run", *options, **settings)) == 2
    told = capsys.readouterr().err
    assert message in told and len(told.splitlines()) == 1
    assert not (tmp_path / "run").exists()
