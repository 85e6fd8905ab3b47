"""Binary cross-entropy of an image: closed forms."""

import math

import pytest
import torch

from infopro.objectives import reconstruction_loss, reconstruction_loss_of_logits


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


def test_loss_of_logits_is_that_of_their_sigmoid_with_its_gradient():
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator)).requires_grad_()
    target = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=generator)
    loss, expected = (
        reconstruction_loss_of_logits(logits, target),
        reconstruction_loss(torch.sigmoid(logits), target),
    )
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    (gradient,), (right,) = torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, right, rtol=1e-10, atol=1e-15)


def test_loss_of_logits_learns_where_the_sigmoid_is_flat():
    logits = torch.full((1, 1, 1, 1), 40.0, requires_grad=True)
    loss = reconstruction_loss_of_logits(logits, torch.zeros(1, 1, 1, 1))
    loss.backward()
    assert loss.item() == pytest.approx(40.0)
    assert logits.grad.item() == pytest.approx(1.0)
    assert reconstruction_loss_of_logits(logits.bfloat16(), torch.zeros(1, 1, 1, 1)).dtype == torch.float32
