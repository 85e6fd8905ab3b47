"""Long runs: no step leaves an object behind, no epoch more than its record, and a folder stays small."""

import gc

import pytest
import torch

from infopro.objectives import Greedy
from infopro.training import RunFolder, TensorBoardLog, make_optimizer, make_schedule, train


@pytest.fixture
def frozen():
    """What is there before is not looked through: a tenth of the time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("options", [{}, {"clip_gradients": 1.0, "on_divergence": "skip"}])
def test_no_step_leaves_anything_behind(data, build, frozen, options):
    local, counts = build(objective=Greedy()), {}

    def count(epoch, step):
        if epoch > 3 and step % 5 == 0:
            gc.collect()
            counts[epoch, step] = len(gc.get_objects())

    train(
        local,
        data,
        optimizer=make_optimizer("sgd", local.parameters(), learning_rate=0.1, weight_decay=0.0),
        schedule=make_schedule("constant", base=0.01, epochs=7, warmup_epochs=0),
        epochs=7,
        batch_size=4,
        seed=3,
        device=torch.device("cpu"),
        on_step=count,
        **options,
    )
    assert [counts[epoch, 10] - counts[epoch, 5] for epoch in range(5, 8)] == [0] * 3
    growth = [counts[epoch + 1, 10] - counts[epoch, 10] for epoch in range(5, 7)]
    assert all(number <= 10 for number in growth), "an epoch leaves its record, which is returned"


def test_three_hundred_epochs_fit_in_a_stated_size(tmp_path, record):
    """2 kB an epoch and module, of log and TensorBoard points; pictures of decoders come besides."""
    folder = RunFolder.create(tmp_path / "run", configuration={}, record={})
    board = TensorBoardLog(folder.path / "tensorboard")
    for epoch in range(1, 301):
        line = record(epoch=epoch, test_error=100 / epoch)
        folder.append(line)
        board.add(line)
    board.close()
    size = sum(file.stat().st_size for file in folder.path.rglob("*") if file.is_file())
    assert 300 * 500 < size < 300 * 2000 * 2
