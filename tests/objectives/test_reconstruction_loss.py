"""Binary cross-entropy of an image: closed forms."""

import math

import pytest
import torch

from infopro.objectives import reconstruction_loss


def image(*values):
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 2, 2)


def test_closed_form():
    decoded, target = image(0.5, 0.25, 0.8, 0.1), image(1.0, 0.0, 0.5, 0.25)
    terms = [
        math.log(0.5),
        math.log(0.75),
        0.5 * math.log(0.8) + 0.5 * math.log(0.2),
        0.25 * math.log(0.1) + 0.75 * math.log(0.9),
    ]
    assert reconstruction_loss(decoded, target).item() == pytest.approx(-sum(terms) / 4, rel=1e-12)


def test_least_at_the_image_itself():
    target = image(0.3, 0.6, 0.9, 0.2)
    at_image = target.clone().requires_grad_()
    reconstruction_loss(at_image, target).backward()
    torch.testing.assert_close(at_image.grad, torch.zeros_like(target))
    assert reconstruction_loss(target + 0.05, target) > reconstruction_loss(target, target)


def test_saturated_decoder_stays_finite():
    decoded, target = image(0.0, 1.0, 0.0, 1.0), image(1.0, 0.0, 0.0, 1.0)
    assert reconstruction_loss(decoded, target).item() == 50.0  # logarithms are cut off at -100


def test_mean_over_everything():
    decoded, target = image(0.5, 0.25, 0.8, 0.1), image(1.0, 0.0, 0.5, 0.25)
    repeated = reconstruction_loss(decoded.expand(3, 2, 2, 2), target.expand(3, 2, 2, 2))
    torch.testing.assert_close(repeated, reconstruction_loss(decoded, target))


def test_autocast_changes_nothing():
    decoded, target = torch.full((1, 1, 2, 2), 0.3), torch.full((1, 1, 2, 2), 0.7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = reconstruction_loss(decoded, target)
    assert torch.equal(inside, reconstruction_loss(decoded, target))
    assert reconstruction_loss(decoded.bfloat16(), target).dtype == torch.float32
