import json
import shutil

import pytest
import torch

from infopro.errors import BadRun
from infopro.recipes import load_run
from infopro.trained_network import load_network

CPU = torch.device("cpu")


@pytest.fixture
def run(trained_run, tmp_path):
    shutil.copytree(trained_run, tmp_path / "run")
    return tmp_path / "run"


def change(file, **values):
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **values}))


def test_the_network_is_the_run_s_without_its_data(run):
    expected = load_run(run)
    state = torch.get_rng_state()
    change(run / "config.json", data=str(run / "nowhere.npz"))
    found = load_network(run, device=CPU)
    assert torch.equal(torch.get_rng_state(), state)
    weights, others = found.model.state_dict(), expected.local.model.state_dict()
    assert list(weights) == list(others)
    assert [name for name in weights if not torch.equal(weights[name], others[name])] == []
    data = expected.data
    assert found.class_names == data.class_names and found.image_shape == data.image_shape
    assert torch.equal(found.task.mean, torch.tensor(data.mean))
    assert torch.equal(found.task.std, torch.tensor(data.std))
    assert not found.task.dense and found.precision == torch.float32
    assert found.title == f"{run}, epoch 2" and found.origin["checkpoint"] == "epoch-0002"


def test_a_class_has_a_colour_also_where_the_data_have_none(run):
    assert len(set(load_network(run, device=CPU).colours)) == 3
    change(run / "run.json", colours=[[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert load_network(run, device=CPU).colours == ((1, 2, 3), (4, 5, 6), (7, 8, 9))


@pytest.mark.parametrize(
    ("data", "crops"), [("cifar10", False), ("some/where.NPZ", False), ("some/folder", True)]
)
def test_only_of_folders_the_middle_is_cut_out(run, data, crops):
    change(run / "config.json", data=data)
    assert load_network(run, device=CPU).crops == crops


@pytest.mark.parametrize(("image_size", "size"), [(None, None), (24, (24, 24)), ([12, 24], (12, 24))])
def test_a_size_that_the_run_brought_images_to_is_known(run, image_size, size):
    change(run / "config.json", image_size=image_size)
    assert load_network(run, device=CPU).size == size


def test_a_run_that_did_not_record_its_classes_is_refused(run):
    record = json.loads((run / "run.json").read_text())
    for name in ("class_names", "mean"):
        del record[name]
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(
        BadRun, match=r"run\.json does not say .*: got no class_names, mean; .* train the run"
    ):
        load_network(run, device=CPU)


def test_a_run_without_a_checkpoint_is_refused(run):
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(BadRun, match="has no checkpoint"):
        load_network(run, device=CPU)
