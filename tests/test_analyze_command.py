import json
import shutil

import numpy as np
import pytest

from infopro.analysis import read_analysis
from infopro.cli import main

QUICK = ["--device", "cpu", "--probe-epochs", "1", "--blocks", "layer1.0", "layer2.1"]


@pytest.fixture
def run(trained_run, tmp_path):
    shutil.copytree(trained_run, tmp_path / "run")
    return tmp_path / "run"


def analyze(*arguments, only=("cka",)):
    return main(["analyze", *map(str, arguments), *QUICK, *(["--only", *only] if only else [])])


def files(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_run_is_analysed_and_what_was_found_is_printed_and_written(run, capsys):
    before = files(run)
    assert analyze(run, only=None) == 0
    printed = capsys.readouterr().out
    assert f"{run}: what each block keeps" in printed and "H(y) = 1.099" in printed
    row = next(line for line in printed.splitlines() if line.startswith(" layer1.0"))
    assert row.split()[1] == "1"
    gradients = printed[printed.index("each module's gradient") :].splitlines()
    assert [line.split()[-1] for line in gradients if line.startswith(" 3")] == ["0.0"]
    written = [run / "analysis" / name for name in ("analysis.json", "reconstructions.npz")]
    assert printed.splitlines()[-1] == f"wrote {written[0]}, {written[1]}, and scalars for TensorBoard"
    scalars = list((run / "tensorboard" / "analysis").glob("events*"))
    assert len(scalars) == 1
    new = {*written, *scalars}
    assert {file: content for file, content in files(run).items() if file not in new} == before

    found = read_analysis(run)
    assert [block.block for block in found.blocks] == ["input", "layer1.0", "layer2.1"]
    assert found.similarities[0].row_run == found.similarities[0].column_run == "run"
    assert found.record["epoch"] == 2 and found.record["checkpoint"] == "epoch-0002"
    assert found.record["cuts"] == json.loads((run / "run.json").read_text())["cuts"]
    assert {"command", "environment"} <= found.record.keys()
    assert found.settings["epochs"] == 1
    assert found.images.captions[:3] == ("0", "1", "2")


def test_an_analysis_is_replaced_or_left_only_when_asked(run, capsys):
    assert analyze(run) == 0
    before = files(run)
    assert analyze(run) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "has an analysis already" in error and "--overwrite" in error
    assert analyze(run, "--resume") == 0
    assert "has an analysis: left as it is" in capsys.readouterr().out
    assert files(run) == before
    assert analyze(run, "--overwrite", only=["gradients"]) == 0
    assert read_analysis(run).similarities == () and len(read_analysis(run).gradients) == 3


def test_of_several_runs_the_first_is_compared_with_each_other_one(run, tmp_path):
    for place in ("second", "elsewhere/run"):
        shutil.copytree(run, tmp_path / place)
    paths = [run, tmp_path / "second", tmp_path / "elsewhere" / "run"]
    assert analyze(*paths) == 0
    pairs = [[(s.row_run, s.column_run) for s in read_analysis(path).similarities] for path in paths]
    assert pairs[0] == [("run", "run")]
    assert pairs[1] == [("second", "second"), ("second", "run")]
    # folders of one name are told apart by those around them
    assert pairs[2] == [("run", "run"), ("run", f"{tmp_path.name}/run")]
    own, other = read_analysis(paths[1]).similarities
    assert own.values == other.values  # the same weights


def test_a_run_may_be_compared_with_one_that_is_not_analysed(run, tmp_path):
    shutil.copytree(run, tmp_path / "reference")
    assert analyze(run, "--compare-with", tmp_path / "reference") == 0
    assert [s.column_run for s in read_analysis(run).similarities] == ["run", "reference"]
    assert not (tmp_path / "reference" / "analysis").exists()


def without_checkpoint(run):
    shutil.rmtree(run / "checkpoints")


def without_data(run):
    configuration = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**configuration, "data": "gone.npz"}))


def with_few_images(run):
    labels = {"y_train": np.arange(6) % 3, "y_test": np.arange(6) % 3}
    images = {name.replace("y", "x"): np.zeros((6, 16, 16, 3), np.uint8) for name in labels}
    np.savez(run.parent / "few.npz", **labels, **images)
    configuration = json.loads((run / "config.json").read_text())
    data = {"data": str(run.parent / "few.npz")}
    (run / "config.json").write_text(json.dumps({**configuration, **data}))


def with_a_neighbour_on_other_data(run):
    shutil.copytree(run, run.parent / "other")
    without_data(run.parent / "other")


BAD = {
    "no such run": (None, ["{run}/nowhere"], "run folder does not exist"),
    "no run in it": (None, ["{run}/checkpoints"], "holds no run"),
    "no checkpoint": (without_checkpoint, ["{run}"], "has no checkpoint"),
    "no data": (without_data, ["{run}"], "no such file or folder"),
    "too little data": (with_few_images, ["{run}", "--only", "task"], "images"),
    "unknown block": (None, ["{run}", "--blocks", "layer7"], "unknown block: got 'layer7'"),
    "unknown quantity": (None, ["{run}", "--only", "cca"], "only"),
    "a size that is none": (None, ["{run}", "--memory", "much"], "a memory size cannot be read"),
    "no images": (None, ["{run}", "--train-images", "0"], "--train-images is out of range: got 0"),
    "named twice": (None, ["{run}", "{run}/../run"], "a run is named twice"),
    "contradiction": (None, ["{run}", "--overwrite", "--resume"], "contradict each other"),
    "nothing compares": (
        None,
        ["{run}", "--compare-with", "{run}", "--only", "gradients"],
        "--compare-with is set, and nothing reads it",
    ),
    "compared with nothing": (None, ["{run}", "--compare-with", "{run}/no"], "run folder does not exist"),
    "other images": (with_a_neighbour_on_other_data, ["{run}", "{run}/../other"], "they are of other images"),
    "compared with others": (
        with_a_neighbour_on_other_data,
        ["{run}", "--compare-with", "{run}/../other"],
        "they are of other images: got data",
    ),
    "no GPU by that name": (None, ["{run}", "--device", "tpu"], "device is not usable"),
    "no run at all": (None, [], "runs"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line_and_writes_nothing(case, run, capsys):
    prepare, arguments, message = BAD[case]
    if prepare is not None:
        prepare(run)
    before = files(run.parent)
    device = [] if "--device" in arguments else ["--device", "cpu"]
    assert main(["analyze", *(argument.format(run=run) for argument in arguments), *device]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("infopro: ") and message in error
    assert files(run.parent) == before


def test_help_explains_every_option(capsys):
    assert main(["analyze", "--help"]) == 0
    assert "for stored features, such as 4GiB" in " ".join(capsys.readouterr().out.split())
