"""Pictures in TensorBoard: the run's own decoders on fixed test images; nothing of the run changes."""

import io

import numpy as np
import PIL.Image
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from infopro import recipes
from infopro.analysis import own_reconstructions
from infopro.data import digits_on_photos
from infopro.recipes._pictures import Pictures, is_shown
from infopro.training import TensorBoardLog


@pytest.fixture(scope="module")
def data():
    return digits_on_photos(train_size=64, test_size=16)


def session_of(data, **options):
    options = {"model": "demo_resnet", "reconstruction_weight": 5.0, "task_weight": 1.0, **options}
    config = recipes.RunConfig(num_modules=2, batch_size=32, epochs=1, warmup_epochs=0, **options)
    return recipes.prepare(config, data, device=torch.device("cpu"))


def images_in(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: events.Images(tag) for tag in events.Tags()["images"]}


def test_the_decoders_view_of_the_first_test_images(data, tmp_path):
    session = session_of(data, objective="infopro-softmax")
    board = TensorBoardLog(tmp_path)
    Pictures(session).write(board, 3)
    board.close()
    (shown,) = images_in(tmp_path)["module_1/reconstructed_images"]
    pixels = np.asarray(PIL.Image.open(io.BytesIO(shown.encoded_image_string)))
    assert shown.step == 3 and pixels.shape == (2 * 32, 8 * 32, 3)
    original = data.test.images[5].permute(1, 2, 0).numpy().astype(int)
    assert abs(pixels[:32, 5 * 32 : 6 * 32].astype(int) - original).max() <= 1  # normalised and back
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
    images = (data.test.images[:8] / 255 - mean) / std
    decoded = own_reconstructions(session.local, images)[0].images[5].permute(1, 2, 0).numpy()
    assert abs(pixels[32:, 5 * 32 : 6 * 32] / 255 - decoded).max() < 0.01


def test_training_is_the_same_with_pictures_as_without(data, tmp_path, monkeypatch):
    weights = []
    for pictures in (True, False):
        if not pictures:
            monkeypatch.setattr(Pictures, "write", lambda *_: None)
        session = session_of(data, objective="infopro-softmax", seed=1)
        path = tmp_path / str(pictures)
        folder, _ = recipes.open_run(session, path, name="a", resume=False, data_dir=None)
        recipes.train_run(session, folder, start=recipes.restore(session, folder, None))
        weights.append({name: value.clone() for name, value in session.local.state_dict().items()})
        assert bool(images_in(path / "tensorboard")) is pictures
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize(
    "options", [{"objective": "greedy"}, {"objective": "infopro-softmax", "reconstruction_weight": None}]
)
def test_without_decoders_there_are_no_pictures(data, options, tmp_path):
    pictures = Pictures(session_of(data, **options))
    board = TensorBoardLog(tmp_path)
    pictures.write(board, 1)
    board.close()
    assert not pictures.possible and images_in(tmp_path) == {}


@pytest.mark.parametrize("epochs", [1, 19, 20, 21, 160, 301])
def test_a_long_run_has_twenty_of_them(epochs):
    shown = [epoch for epoch in range(1, epochs + 1) if is_shown(epoch, epochs)]
    assert len(shown) == min(20, epochs) and shown[-1] == epochs
    gaps = {b - a for a, b in zip([0, *shown], shown, strict=False)}
    assert max(gaps) - min(gaps) <= 1
