import builtins
import io

import numpy as np
import PIL.Image
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from infopro.training import TensorBoardLog

NAMES = {
    "error/train",
    "error/test",
    "error/best_test",
    "loss/test",
    "learning_rate",
    "images_per_second",
    "module_1/reconstruction",
    "module_1/task",
    "module_1/total",
    "module_2/task",
    "module_2/total",
}


def read(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_each_epoch_is_one_point_under_the_names_of_the_log(tmp_path, record):
    board = TensorBoardLog(tmp_path)
    assert board.available
    for epoch in (1, 2):
        board.add(record(epoch=epoch, test_error=50.0 / epoch))
    board.close()
    found = read(tmp_path)
    assert set(found) == NAMES
    assert found["error/test"] == [(1, 50.0), (2, 25.0)]
    assert found["module_1/reconstruction"][0][1] == pytest.approx(0.7)


def test_epochs_that_are_repeated_replace_their_points(tmp_path, record):
    first = TensorBoardLog(tmp_path)
    for epoch in (1, 2, 3):
        first.add(record(epoch=epoch, test_error=float(epoch)))
    first.close()
    resumed = TensorBoardLog(tmp_path, first_epoch=2)
    resumed.add(record(epoch=2, test_error=20.0))
    resumed.close()
    assert read(tmp_path)["error/test"] == [(1, 1.0), (2, 20.0)]


def test_images_stand_below_their_originals(tmp_path):
    board = TensorBoardLog(tmp_path)
    originals, decoded = torch.zeros(10, 3, 4, 4), torch.ones(10, 3, 4, 4)
    for epoch in (1, 2):
        board.add_images(epoch, originals, {"module_1/reconstructed_images": decoded})
    board.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    shown = events.Images("module_1/reconstructed_images")
    assert [image.step for image in shown] == [1, 2]
    assert (shown[0].width, shown[0].height) == (8 * 4, 2 * 4)
    pixels = np.asarray(PIL.Image.open(io.BytesIO(shown[0].encoded_image_string)))
    assert (pixels[:4] == 0).all() and (pixels[4:] == 255).all()


def test_without_the_package_nothing_is_written(tmp_path, record, monkeypatch):
    original = builtins.__import__

    def without(name, *rest):
        if name.startswith(("tensorboard", "torch.utils.tensorboard")):
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    board = TensorBoardLog(tmp_path)
    board.add(record())
    board.add_images(1, torch.zeros(1, 3, 2, 2), {"a": torch.zeros(1, 3, 2, 2)})
    board.close()
    assert not board.available and list(tmp_path.iterdir()) == []
