"""Each command of the README is run, in order, in an empty folder, on a few random images, for one epoch."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from infopro import recipes
from infopro.cli import main
from infopro.data import ImageData, ImageTensors

README = Path(__file__).parent.parent / "README.md"
IMAGES, CLASSES, SIDE = 32, 10, 32


def commands():
    for block in re.findall(r"```console\n(.*?)```", README.read_text(), flags=re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words[:1] == ["infopro"]:
                yield words[1:]


def few_images(config, *, data_dir, download, device, skipped=None):
    """In place of the downloads and folders that the README names."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    part = ImageTensors(images, torch.arange(IMAGES) % CLASSES)
    names = tuple(map(str, range(CLASSES)))
    return ImageData(config.data, part, part, CLASSES, names, (0.5,) * 3, (0.5,) * 3, (3, SIDE, SIDE))


def test_the_readme_shows_every_command():
    shown = {words[0] for words in commands()}
    # demo is behind `make demo`, and has its own test
    assert shown == {"list", "train", "evaluate", "plan", "check", "analyze", "report", "sweep"}


FEW = {
    "train": ["--epochs", "1", "--batch-size", "16", "--device", "cpu"],
    "analyze": ["--only", "cka", "--device", "cpu"],
    "sweep": [
        "--epochs",
        "1",
        "--batch-size",
        "16",
        "--devices",
        "cpu",
        "--analyze",
        "none",
        "--end-to-end",
        "false",
    ],
}


@pytest.fixture
def quick(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipes, "prepare_data", few_images)
    monkeypatch.setattr("infopro.recipes._session.prepare_data", few_images)
    monkeypatch.setattr("infopro.sweep_command.run_jobs", first_job)


def first_job(jobs, slots, **_):
    """The first training of a sweep, in this process: elsewhere the images would be downloaded."""
    return {job.name: 0 for job in jobs} | {jobs[0].name: main([*jobs[0].arguments, "--device=cpu"])}


def test_every_command_of_the_readme_runs(quick, capsys):
    for words in commands():
        options = FEW.get(words[0], [])
        assert main([*words, *options]) == 0, f"infopro {shlex.join(words)}: {capsys.readouterr().err}"
        assert capsys.readouterr().out
    assert len(list(Path("runs").iterdir())) == sum(words[0] == "train" for words in commands())
    assert Path("compared.html").is_file() and Path("sweeps/cifar10-resnet32/report.html").is_file()
