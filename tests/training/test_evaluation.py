import math

import pytest
import torch
from torch import nn

from infopro.tasks import Classification
from infopro.training import evaluate, evaluate_data
from infopro.training.evaluation import evaluation_mode

TASK = Classification(num_classes=2)


class Scores(nn.Module):
    """The logits are the images; counts how often it runs in which mode."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(2).eval()
        self.seen = []

    def forward(self, images):
        self.seen.append((self.training, self.inner.training, torch.is_grad_enabled()))
        return images


def test_error_and_loss_by_hand():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    labels = torch.tensor([0, 0, 0, 0, 1])  # only the second image is wrong, the fourth a tie
    batches = [(logits[:4], labels[:4]), (logits[4:], labels[4:])]  # unequal: the mean is over images
    found = evaluate(Scores(), TASK, batches)
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert found.error == 20.0 and found.num_images == 5
    assert found.loss == pytest.approx((3 * right + wrong + math.log(2)) / 5, rel=1e-6)


def test_modes_are_restored_and_no_graph_is_made():
    model = Scores().train()
    model.norm.eval()
    evaluate(model, TASK, [(torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64))])
    assert model.seen == [(False, False, False)]
    assert model.training and model.inner.training and not model.norm.training


def test_modes_are_restored_after_an_error():
    model = Scores().train()
    model.norm.eval()
    with pytest.raises(RuntimeError, match="broken"), evaluation_mode(model):
        assert not model.training
        raise RuntimeError("broken")
    assert model.training and model.inner.training and not model.norm.training
    with pytest.raises(IndexError):
        evaluate(model, TASK, [(torch.zeros(2, 2), torch.full((2,), 5))])
    assert model.training


def test_test_images_are_normalised_but_not_augmented(data, build):
    local = build()
    found = evaluate_data(local.model, local.task, data, device=torch.device("cpu"))
    images = (data.test.images / 255.0 - 0.3) / 0.2
    expected = evaluate(local.model, local.task, [(images, data.test.labels)])
    assert found.num_images == 20
    assert found.error == expected.error and found.loss == pytest.approx(expected.loss, rel=1e-5)


def test_bfloat16_is_used_when_asked_for(data, build):
    local = build()
    exact, rounded = (
        evaluate_data(local.model, local.task, data, device=torch.device("cpu"), precision=precision).loss
        for precision in (torch.float32, torch.bfloat16)
    )
    assert exact != rounded == pytest.approx(exact, rel=0.02)
