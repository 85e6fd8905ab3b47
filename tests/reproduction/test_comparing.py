import json
import shutil

import pytest
import torch

from infopro import recipes
from infopro.errors import BadRun
from infopro.recipes._saving import save_state
from infopro.reproduction import compare_runs
from infopro.training import Position


@pytest.fixture
def copy(trained_run, tmp_path):
    return shutil.copytree(trained_run, tmp_path / "copy")


def change(run, number, **values):
    """Of one line of the log."""
    lines = (run / "log.jsonl").read_text().splitlines()
    lines[number] = json.dumps({**json.loads(lines[number]), **values})
    (run / "log.jsonl").write_text("\n".join(lines) + "\n")


def changed_checkpoint(run, change):
    """Write the run's last checkpoint anew, as `change(local, optimizer)` leaves it."""
    loaded = recipes.load_run(run)
    session = recipes.prepare(loaded.config, loaded.data, device=torch.device("cpu"))
    start = recipes.restore(session, loaded.folder, loaded.folder.last_checkpoint())
    change(session.local, session.optimizer)
    save_state(session, loaded.folder, Position(start.epoch, best_test_error=start.best_test_error))


def test_a_copy_is_identical_whatever_its_clocks_say(trained_run, copy):
    change(copy, 1, seconds=1.0, images_per_second=2.0)
    found = compare_runs(trained_run, copy)
    assert found.identical and found.lines == 2 and found.checkpoint == "epoch-0002"
    assert found.tensors > 100 and len(found.weights) == 12


def test_the_first_line_that_differs_is_named(trained_run, copy):
    change(copy, 1, test_error=1.25, train_error=float("nan"))
    there = json.loads((trained_run / "log.jsonl").read_text().splitlines()[1])
    (line,) = compare_runs(trained_run, copy).differences
    assert line == f"epoch 2, train_error: {there['train_error']} there, nan here"
    assert compare_runs(copy, copy).identical  # NaN is the same as itself
    losses = there["losses"]
    change(copy, 0, losses=[losses[0], {**losses[1], "task": 7.0}, losses[2]])
    (line,) = compare_runs(trained_run, copy).differences
    assert line.startswith("epoch 1, losses[0].") or line.startswith("epoch 1, losses[1]")


def test_one_bit_of_a_weight_is_found(trained_run, copy):
    def one_bit(local, optimizer):
        with torch.no_grad():
            bits = local.model.conv1.weight.view(torch.int32)
            bits[0, 0, 0, 0] ^= 1

    before = compare_runs(trained_run, trained_run).weights
    changed_checkpoint(copy, one_bit)
    found = compare_runs(trained_run, copy)
    assert len(found.differences) == 1 and found.weights == before
    assert found.differences[0].startswith("epoch-0002: 1 of ")
    assert "tensors of the model differ, first conv1.weight by at most" in found.differences[0]


def test_optimizers_are_compared_too(trained_run, copy):
    def other_state(local, optimizer):
        parameter = local.model.conv1.weight
        optimizer.state[parameter]["momentum_buffer"].neg_()
        optimizer.param_groups[0]["momentum"] = 0.5

    changed_checkpoint(copy, other_state)
    first, second = compare_runs(trained_run, copy).differences
    assert "tensors of the optimizer differ, first model.conv1.weight" in first
    assert second.startswith("epoch-0002: the optimizer's settings of ") and "differ, first heads." in second


def test_what_both_have_is_compared(trained_run, copy):
    lines = (copy / "log.jsonl").read_text().splitlines()
    (copy / "log.jsonl").write_text(lines[0] + "\n" + lines[1][:20])  # killed while it wrote
    shutil.rmtree(copy / "checkpoints" / "epoch-0002")
    found = compare_runs(trained_run, copy)
    assert found.identical and found.lines == 1 and found.checkpoint == "epoch-0001"
    shutil.rmtree(copy / "checkpoints" / "epoch-0001")
    found = compare_runs(trained_run, copy)
    assert found.checkpoint is None and found.weights is None
    (copy / "log.jsonl").write_text("{]\n")
    with pytest.raises(BadRun, match=r"log\.jsonl cannot be read"):
        compare_runs(trained_run, copy)
