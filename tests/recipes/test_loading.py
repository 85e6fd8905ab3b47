import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from infopro.errors import BadData, BadRun
from infopro.recipes import evaluate_run, load_run


@pytest.fixture
def copy(trained_run, tmp_path):
    shutil.copytree(trained_run, tmp_path / "run")
    return tmp_path / "run"


def test_network_and_heads_are_those_of_the_last_checkpoint(trained_run):
    stream = torch.get_rng_state()
    loaded = load_run(trained_run)
    assert torch.equal(torch.get_rng_state(), stream)
    assert loaded.state.epoch == 2 and loaded.folder.path == trained_run
    assert loaded.config.objective == "infopro-softmax" and loaded.data.image_shape == (3, 16, 16)
    for kind, module in {"model": loaded.local.model, "heads": loaded.local.heads}.items():
        stored = load_file(trained_run / "checkpoints" / "epoch-0002" / f"{kind}.safetensors")
        found = module.state_dict()
        assert found.keys() == stored.keys() and len(stored) > 20
        assert all(torch.equal(value, stored[name]) for name, value in found.items())
    assert set(loaded.local.stages[0].heads) == {"reconstruction", "task"}


def test_it_makes_the_errors_that_were_logged(trained_run):
    loaded = load_run(trained_run)
    state, result = evaluate_run(trained_run, data_dir=None, download=False, device=torch.device("cpu"))
    log = [json.loads(line) for line in (trained_run / "log.jsonl").read_text().splitlines()]
    assert result.error == log[-1]["test_error"] and state == loaded.state
    images, labels = loaded.data.test.images, loaded.data.test.labels
    task = loaded.local.task
    unit = images.float() / 255
    normalised = (unit - task.mean.view(3, 1, 1)) / task.std.view(3, 1, 1)
    with torch.no_grad():
        counts = task.counts(loaded.local.model.eval()(normalised), labels)
    assert task.error(counts.tolist()) == pytest.approx(result.error, abs=2.1)  # rounding of one image


def test_an_earlier_checkpoint_can_be_asked_for(trained_run):
    first = load_run(trained_run, checkpoint=trained_run / "checkpoints" / "epoch-0001")
    last = load_run(trained_run)
    assert first.state.epoch == 1
    assert not torch.equal(first.local.model.conv1.weight, last.local.model.conv1.weight)


def test_the_network_is_cut_where_the_run_cut_it(copy):
    """Not where this version would cut: a record that says so is followed."""
    record = json.loads((copy / "run.json").read_text())
    assert load_run(copy).local.split.cuts == tuple(record["cuts"])
    other = ["layer1.0", record["cuts"][1]]  # of features of the same shape, so that the heads fit
    assert record["cuts"] != other
    (copy / "run.json").write_text(json.dumps({**record, "cuts": other}))
    assert load_run(copy).local.split.cuts == tuple(other)


def test_what_is_missing_is_named(copy, tmp_path):
    with pytest.raises(BadRun, match=r"run folder does not exist: got .*nowhere"):
        load_run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadRun, match="holds no run"):
        load_run(tmp_path / "empty")
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(BadRun, match=r"no checkpoint: got .*; train at least one epoch first"):
        load_run(copy)


def test_missing_data_are_named(copy):
    configuration = json.loads((copy / "config.json").read_text())
    configuration["data"] = "gone/colours.npz"
    (copy / "config.json").write_text(json.dumps(configuration))
    with pytest.raises(BadData, match=r"no such file or folder: got 'gone/colours.npz'"):
        load_run(copy)


@pytest.mark.parametrize("kind", ["model", "heads"])
def test_a_damaged_checkpoint_is_named(kind, copy):
    file = copy / "checkpoints" / "epoch-0002" / f"{kind}.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(BadRun, match=rf"{kind}.safetensors is damaged"):
        load_run(copy)


def test_a_checkpoint_of_another_network_is_refused(copy):
    configuration = json.loads((copy / "config.json").read_text())
    configuration["task_head"] = "2c2f"
    (copy / "config.json").write_text(json.dumps(configuration))
    with pytest.raises(BadRun, match="belongs to another network"):
        load_run(copy)
