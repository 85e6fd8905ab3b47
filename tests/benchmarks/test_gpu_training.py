"""The GPU driver's parts, on a CPU: data from mosaics, runs that are stopped and go on, what is measured."""

import sys
import threading
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from infopro import data as data_sets
from infopro import recipes
from infopro.errors import BadData
from infopro.training import RunFolder

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "gpu"))

import gpu_options
import gpu_packing
import run as gpu_run
from gpu_jobs import Job
from gpu_measuring import measure_step, random_data, throughput
from gpu_mosaics import read_mosaics
from gpu_training import Data, train
from gpu_workers import Settings

CPU = torch.device("cpu")
TINY = {"epochs": 3, "limit_train": 128, "limit_test": 64}
JOB = Job(kind="train", recipe="digits-demo-k4-infopro-softmax", changed=TINY)
RECORDED = ("test_error", "best_test_error", "train_error", "epochs")


@pytest.fixture(scope="module")
def digits():
    return Data(CPU)


def mosaics(folder, images, labels):
    """Six mosaics of two rows of three tiles: five of training images, one of test images."""
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for name, batch in zip(names, images.reshape(6, 2, 3, 32, 32, 3), strict=True):
        picture = batch.transpose(0, 2, 1, 3, 4).reshape(64, 96, 3)
        Image.fromarray(picture).save(folder / f"{name}.webp", lossless=True, exact=True)
    named = {"y_train": labels[:30], "y_test": labels[30:], "class_names": np.array(list("abcdefghij"))}
    np.savez(folder / "labels.npz", **named)


@pytest.fixture
def mosaic_folder(tmp_path):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (36, 32, 32, 3), dtype=np.uint8)
    labels = random.permutation(np.arange(36) % 10)
    mosaics(tmp_path, images, labels)
    return tmp_path, torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)


def test_mosaics_hold_every_image_in_its_place(mosaic_folder):
    folder, images, labels = mosaic_folder
    found = read_mosaics(folder)
    assert torch.equal(found.train.images, images[:30]) and torch.equal(found.train.labels, labels[:30])
    assert torch.equal(found.test.images, images[30:]) and torch.equal(found.test.labels, labels[30:])
    assert found.class_names == tuple("abcdefghij") and found.name == "cifar10"
    source = data_sets.torchvision_sets.SOURCES["cifar10"]
    assert (found.mean, found.std, found.augmentation) == (source.mean, source.std, source.augmentation)


def test_mosaics_are_held_out_and_limited_like_any_data_set(mosaic_folder):
    folder, *_ = mosaic_folder
    config = replace(recipes.load("cifar10-resnet32-k4-greedy").config, hold_out=0.4, limit_train=10)
    found = Data(CPU, mosaics=folder).of(config)
    held = data_sets.hold_out(read_mosaics(folder), fraction=0.4)
    assert len(found.train) == 10 and torch.equal(found.test.images, held.test.images)


def test_missing_mosaics_are_said(tmp_path):
    with pytest.raises(BadData, match=r"labels\.npz"):
        read_mosaics(tmp_path)


class StopAfter:
    """Says no this often."""

    def __init__(self, times):
        self.left = times

    def __call__(self):
        self.left -= 1
        return self.left < 0


def never():
    return False


@pytest.fixture(scope="module")
def undisturbed(digits, tmp_path_factory):
    return train(JOB, digits, device=CPU, runs=tmp_path_factory.mktemp("runs"), stop=never)


@pytest.mark.parametrize(
    ("asked", "position"),
    [
        (1, "epoch-0000-step-000001"),
        (3, "epoch-0000-step-000002"),
        (5, "epoch-0001"),
        (7, "epoch-0001-step-000002"),
    ],
)
def test_a_stopped_run_goes_on_as_if_it_had_not(digits, undisturbed, tmp_path, asked, position):
    """Asked before each of an epoch's two steps and behind them, and so in its test of one batch."""
    assert train(JOB, digits, device=CPU, runs=tmp_path, stop=StopAfter(asked)) is None
    assert RunFolder(tmp_path / JOB.name).last_checkpoint().name == position
    row = train(JOB, digits, device=CPU, runs=tmp_path, stop=never)
    assert [row[name] for name in RECORDED] == [undisturbed[name] for name in RECORDED]
    assert row["peak_bytes"] is None and row["data_bytes"] == (128 + 64) * 3 * 32 * 32


def test_a_run_that_began_no_step_leaves_none(digits, tmp_path):
    assert train(JOB, digits, device=CPU, runs=tmp_path, stop=lambda: True) is None
    assert gpu_packing.pack(tmp_path, tmp_path / "packed") == 0
    assert gpu_packing.unpack(tmp_path / "packed", tmp_path / "other") == []


def test_packed_runs_go_on_elsewhere(digits, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_packing, "PIECE_BYTES", 200_000)
    here, there, packed = tmp_path / "here", tmp_path / "there", tmp_path / "packed"
    train(JOB, digits, device=CPU, runs=here, stop=StopAfter(1))
    gpu_packing.pack(here, packed)
    train(JOB, digits, device=CPU, runs=here, stop=StopAfter(2))
    assert gpu_packing.pack(here, packed) == 1
    pieces = sorted(packed.glob("*.tar"))
    assert len(pieces) > 2 and max(piece.stat().st_size for piece in pieces) <= 200_000
    assert all(path.is_file() for path in packed.iterdir())

    assert gpu_packing.unpack(packed, there) == [JOB.name]
    asked = StopAfter(100)
    row = train(JOB, digits, device=CPU, runs=there, stop=asked)
    assert [row[name] for name in RECORDED] == [undisturbed[name] for name in RECORDED]
    assert 100 - asked.left < 15, "asked less often than in the whole run"

    pieces[0].write_bytes(b"")
    with pytest.raises(ValueError, match="not whole"):
        gpu_packing.unpack(packed, tmp_path / "nowhere")


def test_packing_again_changes_nothing(digits, tmp_path):
    train(JOB, digits, device=CPU, runs=tmp_path / "runs", stop=StopAfter(1))
    for _ in range(2):
        gpu_packing.pack(tmp_path / "runs", tmp_path / "packed")
        files = {path: path.stat().st_mtime_ns for path in (tmp_path / "packed").iterdir()}
        gpu_packing.pack(tmp_path / "runs", tmp_path / "packed")
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "packed").iterdir()} == files


def test_a_step_is_measured_as_planned():
    """No allocator's peak on a CPU; the plan with everything checkpointed is smaller."""
    common = {"kind": "measure", "recipe": "digits-demo-k4-infopro-softmax", "precision": "tf32"}
    again = {"batch_size": 32, "checkpoint": "everything"}
    large, kept_less = (
        measure_step(Job(**common, changed=changed), device=CPU, rounds=1)
        for changed in ({"batch_size": 32}, again)
    )
    assert kept_less["planned_bytes"] < large["planned_bytes"] and kept_less["checkpoint"] == "everything"
    assert large["random_images"] and large["batch_size"] == 32 and large["peak_bytes"] is None
    assert large["step_seconds"] > 0 and large["cuts"] == ["layer1.0", "layer1.1", "layer2.0"]


@pytest.mark.parametrize(
    ("recipe", "shape", "masks"),
    [
        ("cifar10-resnet110-end-to-end", (3, 32, 32), False),
        ("stl10-resnet110-end-to-end", (3, 96, 96), False),
        ("imagenet-resnet101-end-to-end", (3, 224, 224), False),
        ("cityscapes-deeplabv3-resnet101-k2-balanced-640x1280-infopro-softmax", (3, 640, 1280), True),
    ],
)
def test_random_images_have_the_form_of_the_data(recipe, shape, masks):
    found = random_data(recipes.load(recipe).config)
    assert (found.image_shape, found.has_masks) == (shape, masks)
    assert tuple(found.train.images.shape[1:]) == shape


def test_throughput_counts_from_the_meeting(digits):
    met = threading.Event()
    job = replace(JOB, kind="throughput", changed={**TINY, "epochs": 1000})
    row = throughput(job, digits, device=CPU, seconds=0.5, meet=met.set)
    assert met.is_set() and row["images_per_second"] > 0 and 0.5 < row["seconds"] < 10
    with pytest.raises(RuntimeError, match="more epochs"):
        short = replace(job, changed={**TINY, "epochs": 1})
        throughput(short, digits, device=CPU, seconds=0.5, meet=met.set)


class Places:
    """Stands in for workers: some idle, some busy with jobs."""

    def __init__(self, idle, *jobs):
        self.idle = [object()] * idle
        self.busy = [type("Busy", (), {"job": job})() for job in jobs]


def call(jobs, *, left, tmp_path):
    now = gpu_run.time.time()
    settings = Settings(
        device="cpu",
        mosaics=None,
        data_dir=None,
        runs=tmp_path / "runs",
        output=tmp_path,
        deadline=now + left,
        side_by_side=2,
        commit=None,
        throughput_seconds=1.0,
    )
    with mock.patch.object(gpu_run, "STARTED", now):  # else when pytest imported it
        return gpu_run.Call(jobs, settings)


ALONE = Job(kind="measure", recipe="imagenet-resnet101-end-to-end", estimate=30.0)


def test_measurements_wait_until_they_are_alone(tmp_path):
    found = call([ALONE, JOB], left=100, tmp_path=tmp_path)
    assert found._next(Places(1, JOB)) is None, "and nothing overtakes them"
    assert found._next(Places(2)) is ALONE
    assert found._next(Places(1, ALONE)) is None, "nothing runs beside them"
    assert found._next(Places(2)) is JOB
    assert found._next(Places(2)) is None


def test_what_is_too_long_is_passed_over(tmp_path):
    found = call([ALONE, JOB], left=20, tmp_path=tmp_path)
    assert found._next(Places(1)) is JOB and found.waiting == []
    late = call([ALONE, JOB], left=-1, tmp_path=tmp_path)
    assert late._next(Places(1)) is None
    asked = call([JOB], left=100, tmp_path=tmp_path)
    asked.ask()
    assert asked._next(Places(1)) is None


def test_the_list_is_a_dry_run(capsys, monkeypatch, tmp_path):
    output = ["--output", str(tmp_path / "none")]
    monkeypatch.setattr(sys, "argv", ["run.py", "--list", "--priorities", "precision", *output])
    gpu_run.main()
    assert "cifar10-resnet32-k4-infopro-contrast, seed 0, float32" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("word", ["--side-by-side=0", "--seeds=0", "--seconds=0"])
def test_wrong_words_are_refused(word, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run.py", word])
    with pytest.raises(SystemExit):
        gpu_run.main()
    assert "1 or more" in capsys.readouterr().err


def test_what_has_a_line_is_not_asked_for_again(monkeypatch, tmp_path):
    words = ["run.py", "--recipes", JOB.recipe, "--seeds", "3", "--output", str(tmp_path)]
    words += ["--set", *(f"{name}={value}" for name, value in TINY.items())]
    monkeypatch.setattr(sys, "argv", words)
    row = {
        "kind": "train",
        "recipe": JOB.recipe,
        "precision": "bfloat16",
        "execution": "compiled",
        "changed": TINY,
    }
    for seed, rest in ((0, {}), (1, {"error": "lost"})):
        gpu_run.append(tmp_path / gpu_run.ROWS, {**row, "seed": seed, **rest})
    assert [job.seed for job in gpu_run.chosen_jobs(gpu_options.parse(""))] == [2]
    monkeypatch.setattr(sys, "argv", [*words, "--again-failed"])
    assert [job.seed for job in gpu_run.chosen_jobs(gpu_options.parse(""))] == [1, 2]
