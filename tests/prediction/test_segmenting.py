import numpy as np
import pytest
import torch
from torch import nn

from infopro.errors import BadInput
from infopro.prediction import Inference, predict_segmentation
from infopro.tasks import Segmentation


def photo(rows, columns, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3)).astype(np.uint8)


def test_photos_of_any_sizes_keep_their_order(neighbourhood):
    task = Segmentation(num_classes=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    photos = [photo(9, 7), photo(9, 7, 1), photo(9, 7, 2), photo(5, 8), photo(9, 7, 3)]
    found = predict_segmentation(neighbourhood, photos, task=task, inference=Inference(batch_size=2))
    neighbourhood.eval()
    for image, prediction in zip(photos, found, strict=True):
        pixels = (torch.from_numpy(image) / 255 - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor(
            [0.2, 0.25, 0.3]
        )
        with torch.no_grad():
            likely = neighbourhood(pixels.permute(2, 0, 1)[None]).softmax(dim=1)[0]
        assert prediction.mask.dtype == np.uint8
        chosen = likely.gather(0, torch.from_numpy(prediction.mask).long()[None])[0]
        assert (chosen >= likely.amax(dim=0) - 1e-5).all()  # a batch of another size may round another way
        np.testing.assert_allclose(prediction.confidence, likely.amax(dim=0).numpy(), rtol=1e-4)
        shares = [float((prediction.mask == label).mean()) for label in range(3)]
        assert prediction.shares == pytest.approx(shares) and sum(prediction.shares) == pytest.approx(1)
    assert len({prediction.mask.tobytes() for prediction in found}) == 5


def test_255_classes_fit_into_a_mask():
    network = nn.Conv2d(3, 255, 1)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    with torch.no_grad():
        network.bias[254] = 1.0
    (found,) = predict_segmentation(network, [photo(2, 2)], task=Segmentation(num_classes=255))
    assert found.mask.tolist() == [[254, 254], [254, 254]] and found.shares[254] == 1.0


def test_without_photos_there_is_nothing(pointwise, task):
    assert predict_segmentation(pointwise, [], task=task) == []


@pytest.mark.parametrize(
    "image", [photo(4, 4).astype(np.float32), photo(4, 4)[..., 0], np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_photo_is_refused(pointwise, task, image):
    with pytest.raises(BadInput, match=r"allowed: uint8 \[H, W, channels\]"):
        predict_segmentation(pointwise, [image], task=task)


def test_channels_that_the_normalisation_does_not_have_are_refused(pointwise):
    task = Segmentation(num_classes=3, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    with pytest.raises(BadInput, match="other channels than the task's mean: got 4; allowed: 3"):
        predict_segmentation(pointwise, [np.zeros((4, 4, 4), np.uint8)], task=task)
