import numpy as np
import pytest
import torch
from torch import nn

from infopro.errors import BadConfiguration, BadInput
from infopro.prediction import predict_classes
from infopro.tasks import Classification


class Colours(nn.Module):
    """The logits are the mean of each channel, of an image in [0, 1] times ten."""

    def __init__(self):
        super().__init__()
        self.sizes = []
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, images):
        assert not self.training and not torch.is_grad_enabled()
        self.sizes.append(len(images))
        return (self.scale * images.mean(dim=(2, 3)), None)  # as GoogLeNet without auxiliary logits


def test_the_most_probable_classes_come_first():
    task = Classification(num_classes=3, mean=(0.2,), std=(0.5,))
    photos = [np.full((4, 4, 3), colour, np.uint8) for colour in [(255, 0, 51), (0, 102, 51), (9, 8, 7)]]
    network = Colours()
    found = predict_classes(network, photos, task=task, top=2, batch_size=2)
    assert [prediction.classes for prediction in found] == [(0, 2), (1, 2), (0, 1)]
    logits = torch.tensor([16.0, -4.0, 0.0])  # 10 · (1 - 0.2) / 0.5, ...
    expected = logits.softmax(dim=0)[[0, 2]].tolist()
    assert found[0].probabilities == pytest.approx(expected, rel=1e-4)
    assert network.sizes == [2, 1] and network.training


def test_all_classes_where_there_are_fewer_than_asked_for():
    photos = [np.zeros((4, 4, 3), np.uint8)]
    (found,) = predict_classes(Colours(), photos, task=Classification(num_classes=3), top=5)
    assert sorted(found.classes) == [0, 1, 2] and sum(found.probabilities) == pytest.approx(1)


@pytest.mark.parametrize("option", ["top", "batch_size"])
def test_options_that_leave_nothing_to_do_are_refused(option):
    with pytest.raises(BadConfiguration, match=f"{option} is not positive"):
        predict_classes(Colours(), [], task=Classification(num_classes=3), **{option: 0})


def test_what_is_no_photo_is_refused():
    with pytest.raises(BadInput, match="an image has the wrong type or shape"):
        predict_classes(Colours(), [np.zeros((4, 4))], task=Classification(num_classes=3))
