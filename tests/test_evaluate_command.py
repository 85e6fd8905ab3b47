"""`infopro evaluate` of masks: as the log has it, or through windows, scales and mirrored."""

import pytest
import torch

from infopro import recipes
from infopro.cli import main
from infopro.prediction import Inference, evaluate_dense
from infopro.training.reading import plain_batches

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluate") / "run"
    options = {
        "model": "torchvision/lraspp_mobilenet_v3_large",
        "data": "digits-on-photos-masks",
        "objective": "greedy",
        "num-modules": 2,
        "epochs": 1,
        "batch-size": 8,
        "learning-rate": 0.05,
        "crop": "24,24",
        "limit-train": 32,
        "limit-test": 10,
    }
    given = [f"--{name}={value}" for name, value in options.items()]
    assert main(["train", *given, f"--output={path}", "--device=cpu"]) == 0
    return path


def evaluated(capsys, *arguments):
    capsys.readouterr()
    status = main(["evaluate", *map(str, arguments), "--device=cpu"])
    return status, capsys.readouterr()


def test_without_options_it_is_the_logs(run, capsys):
    status, said = evaluated(capsys, run)
    record = recipes.load_run(run).folder.log()[-1]
    expected = (
        f"test mIoU {100 - record.test_error:.2f} %, {record.extra['pixel_accuracy']:.2f} % of the pixels"
    )
    assert status == 0 and expected in said.out and "on 10 images" in said.out


@pytest.mark.parametrize(
    ("options", "inference"),
    [
        (["--scales", "0.5", "1", "--flip"], Inference(scales=(0.5, 1.0), flip=True)),
        (["--window", "24,24"], Inference(window=(24, 24))),
    ],
)
def test_with_options_images_are_seen_so(run, capsys, options, inference):
    status, said = evaluated(capsys, run, *options)
    loaded = recipes.load_run(run)
    batches = plain_batches(loaded.data.test, loaded.data, batch_size=1, device=CPU)
    found = evaluate_dense(loaded.local.model, loaded.local.task, batches, inference=inference)
    assert status == 0 and f"test mIoU {100 - found.error:.2f} %" in said.out
    assert f"(loss {found.loss:.4f})" in said.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window", "wide"], "--window cannot be read: got 'wide'"),
        (["--scales", "0"], "scales"),
        (["--window", "0,4"], "window"),
    ],
)
def test_what_cannot_be_read_is_one_line(run, capsys, options, message):
    status, said = evaluated(capsys, run, *options)
    assert status == 2 and message in said.err and said.err.count("\n") == 1


def test_options_of_masks_are_refused_for_labels(tmp_path, capsys):
    path = tmp_path / "run"
    given = ["--model=demo_resnet", "--data=digits-on-photos", "--objective=greedy", "--num-modules=2"]
    small = ["--epochs=1", "--limit-train=64", "--limit-test=32", "--batch-size=32", "--device=cpu"]
    assert main(["train", *given, *small, f"--output={path}"]) == 0
    status, said = evaluated(capsys, path, "--flip")
    assert status == 2 and "--flip: nothing reads this" in said.err
