"""Bad images as the command line meets them: before training, during it, and in a run that goes on."""

import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

import infopro.data
from infopro.cli import main

OPTIONS = ["--model", "demo_resnet", "--num-modules", "3", "--objective", "greedy", "--image-size", "16"]
OPTIONS += ["--batch-size", "8", "--learning-rate", "0.05", "--device", "cpu", "--epochs", "2"]


@pytest.fixture
def photos(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for place in range(10):
            pixels = np.random.default_rng([label, place]).integers(0, 120, (20, 24, 3)) + 120 * label
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / name / f"{place}.png")
    return tmp_path / "photos"


def train(photos, run, *options):
    return main(["train", "--data", str(photos), *OPTIONS, "--output", str(run), *options])


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return content


def weights(run, epoch=2):
    folder = run / f"checkpoints/epoch-{epoch:04d}"
    return {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}


def said(capsys):
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_before_training_all_are_listed_and_nothing_is_begun(photos, tmp_path, capsys):
    for place in range(6):
        cut(photos / "dog" / f"{place}.png")
    (photos / "cat/0.png").write_bytes(b"")
    assert train(photos, tmp_path / "run") == 2
    line = said(capsys)
    assert line.startswith("infopro: cannot read 7 images: got ") and "and 2 more" in line
    assert "--on-bad-image skip; all are in " in line and not (tmp_path / "run").exists()
    listed = (tmp_path / "run.bad-images.txt").read_text().splitlines()
    assert listed[1] == "'cat/0.png': the file is empty" and len(listed) == 1 + 7

    (photos / "cat/0.png").unlink()
    assert train(photos, tmp_path / "run") == 2  # the list is its own, and is written anew
    assert len((tmp_path / "run.bad-images.txt").read_text().splitlines()) == 1 + 6
    (tmp_path / "run.bad-images.txt").write_text("my notes")
    capsys.readouterr()
    assert train(photos, tmp_path / "run") == 2
    assert "stays as it is" in said(capsys) and (tmp_path / "run.bad-images.txt").read_text() == "my notes"


def test_one_is_named_without_a_list(photos, tmp_path, capsys):
    cut(photos / "dog/3.png")
    assert train(photos, tmp_path / "run") == 2
    line = said(capsys)
    assert "dog/3.png" in line and "--on-bad-image skip" in line
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_skipped_ones_are_counted_listed_and_left_out_for_good(photos, tmp_path, capsys):
    content = cut(photos / "dog/3.png")
    (photos / "cat/zz.png").write_text("hello")
    skip = ("--on-bad-image", "skip")
    assert train(photos, tmp_path / "whole", *skip) == 0
    assert "2 files that cannot be read are left out: listed in run.json" in capsys.readouterr().out
    record = json.loads((tmp_path / "whole/run.json").read_text())
    assert record["skipped_images"].keys() == {"dog/3.png", "cat/zz.png"}
    assert record["train_images"] + record["test_images"] == 19

    assert train(photos, tmp_path / "run", *skip, "--until", "1") == 0
    (photos / "dog/3.png").write_bytes(content)  # repaired meanwhile
    assert train(photos, tmp_path / "run", *skip, "--resume") == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert f"on {record['test_images']} images" in capsys.readouterr().out


@pytest.mark.parametrize("workers", ["0", "2"])
def test_one_that_shows_during_training_ends_the_run_and_costs_nothing(
    photos, tmp_path, capsys, monkeypatch, workers
):
    read_later = partial(infopro.data.class_folders, max_bytes=0)
    monkeypatch.setattr("infopro.data.class_folders", read_later)
    how = ("--num-workers", workers)
    assert train(photos, tmp_path / "whole", *how) == 0
    assert train(photos, tmp_path / "run", *how, "--until", "1") == 0
    before = weights(tmp_path / "run", epoch=1)
    spoilt = [(path, cut(path)) for path in sorted((photos / "dog").iterdir())]  # heads are whole
    capsys.readouterr()
    assert train(photos, tmp_path / "run", *how, "--resume") == 2
    line = said(capsys)
    assert "cannot read the image (image file is truncated" in line and "photos/dog/" in line
    assert weights(tmp_path / "run", epoch=1) == before != {}
    assert len((tmp_path / "run/log.jsonl").read_text().splitlines()) == 1

    for path, content in spoilt:
        path.write_bytes(content)
    assert train(photos, tmp_path / "run", *how, "--resume") == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_a_spoilt_record_of_what_was_left_out_is_refused(photos, tmp_path, capsys):
    skip = ("--on-bad-image", "skip")
    assert train(photos, tmp_path / "run", *skip, "--until", "1") == 0
    record = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps({**record, "skipped_images": [1]}))
    capsys.readouterr()
    for command in (["evaluate", str(tmp_path / "run")], None):
        status = main(command) if command else train(photos, tmp_path / "run", *skip, "--resume")
        assert status == 2 and "skipped_images in a form that no version writes" in said(capsys)
