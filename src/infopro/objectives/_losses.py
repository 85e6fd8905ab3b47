"""The loss functions, pure: tensors in, one scalar out, in at least float32 whatever the autocast."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infopro.heads import at_least_float32

__all__ = ["reconstruction_loss", "reconstruction_loss_of_logits", "supervised_contrastive"]


def reconstruction_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """Binary cross-entropy of a decoder's output and the image, mean over all pixels and channels.

    InfoPro's estimate of -I(h, x) (Wang et al., ICLR 2021). Its smallest value is the entropy of the image's
    values taken as probabilities, not 0. The image is a target and gets no gradient.

    Shapes:
        both [N, C, H, W] in [0, 1] -> scalar, nats per value.

    Example:
        >>> import torch
        >>> round(reconstruction_loss(torch.full((1, 1, 2, 2), 0.5), torch.ones(1, 1, 2, 2)).item(), 4)
        0.6931
    """
    # autocast refuses this loss; computing it in half precision would be wrong besides
    with torch.autocast(decoded.device.type, enabled=False):
        decoded = at_least_float32(decoded)
        loss = F.binary_cross_entropy(decoded, images.detach().to(decoded.dtype))
        # torch's scalar keeps the memory of all pixels' losses, for as long as it is logged; its clone
        # does not
        return loss.clone()


def reconstruction_loss_of_logits(logits: Tensor, images: Tensor) -> Tensor:
    """`reconstruction_loss(sigmoid(logits), images)` in one pass over the pixels.

    Equal up to rounding, until the sigmoid is 0 or 1 in float32: there this one still grows with the logit,
    and has a gradient.

    Shapes:
        logits of any value and images in [0, 1], both [N, C, H, W] -> scalar, nats per value.

    Example:
        >>> import torch
        >>> logits, images = torch.tensor([[[[-2.0, 3.0]]]]), torch.tensor([[[[0.25, 1.0]]]])
        >>> of_image = reconstruction_loss(torch.sigmoid(logits), images)
        >>> torch.allclose(reconstruction_loss_of_logits(logits, images), of_image)
        True
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = at_least_float32(logits)
        return F.binary_cross_entropy_with_logits(logits, images.detach().to(logits.dtype))


def supervised_contrastive(
    features: Tensor, targets: Tensor, *, temperature: float = 0.07, counted: Tensor | None = None
) -> Tensor:
    """Supervised contrastive loss of a batch with one view per image (Khosla et al., NeurIPS 2020, eq. 2).

    Positives are the other images of the class in the batch. An image without any contributes 0 to the mean
    over the batch, as the reference values of InfoPro's published code demand (pytorch-metric-learning leaves
    it out of the mean); a batch without any positives gives 0, with a gradient of 0. The published base
    temperature equals the temperature: its factor is 1. For the backward pass the unit vectors are kept, not
    the N x N similarities, which are computed again.

    Args:
        features: any scale; rows are L2-normalised here.
        targets: class labels.
        temperature: that the cosine similarities are divided by.
        counted: which rows there are; the others are no anchors, no positives and no negatives, and the mean
            is over those that are counted. None: all.

    Shapes:
        features [N, D], targets [N], counted [N] bool -> scalar, nats.

    Example:
        >>> import torch
        >>> pairs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> value = supervised_contrastive(pairs, torch.tensor([0, 0, 1, 1]), temperature=1.0)
        >>> round(value.item(), 4)  # log(1 + 2 / e)
        0.5514
    """
    with torch.autocast(features.device.type, enabled=False):
        unit_ND = F.normalize(at_least_float32(features), dim=1)
        loss: Tensor = _Contrast.apply(unit_ND, targets, temperature, counted)
        return loss


class _Contrast(torch.autograd.Function):
    """The loss of unit vectors; keeps those for the backward pass, and nothing of size N x N."""

    @staticmethod
    def forward(
        ctx: Any, unit_ND: Tensor, targets: Tensor, temperature: float, counted_N: Tensor | None
    ) -> Tensor:
        similarity_NN = _similarities(unit_ND, temperature, counted_N)
        positive_NN, num_positives_N = _positives(targets, counted_N)
        log_sum_N = similarity_NN.logsumexp(dim=1)
        positive_sum_N = similarity_NN.masked_fill_(~positive_NN, 0.0).sum(dim=1)
        ctx.save_for_backward(unit_ND, targets, log_sum_N, counted_N)
        ctx.temperature = temperature
        loss_N = log_sum_N - positive_sum_N / num_positives_N.clamp(min=1)
        loss_N = loss_N.masked_fill(num_positives_N == 0, 0.0)
        return loss_N.mean() if counted_N is None else loss_N.sum() / counted_N.sum().clamp(min=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        unit_ND, targets, log_sum_N, counted_N = ctx.saved_tensors
        with torch.autocast(unit_ND.device.type, enabled=False):
            positive_NN, num_positives_N = _positives(targets, counted_N)
            # of the similarities: softmax minus the positives' even share, for images that have a positive
            slope_NN = _similarities(unit_ND, ctx.temperature, counted_N).sub_(log_sum_N[:, None]).exp_()
            slope_NN.sub_(positive_NN / num_positives_N.clamp(min=1)[:, None])
            slope_NN.mul_((num_positives_N > 0)[:, None])
            rows = len(unit_ND) if counted_N is None else counted_N.sum().clamp(min=1)
            scale = gradient / (rows * ctx.temperature)
            return (slope_NN @ unit_ND + slope_NN.T @ unit_ND) * scale, None, None, None


def _similarities(unit_ND: Tensor, temperature: float, counted_N: Tensor | None) -> Tensor:
    similarity_NN = (unit_ND / temperature) @ unit_ND.T
    # an image is no partner of its own; finite, so that a batch of one has a gradient of 0
    least = torch.finfo(similarity_NN.dtype).min
    similarity_NN.fill_diagonal_(least)
    return similarity_NN if counted_N is None else similarity_NN.masked_fill_(~counted_N, least)


def _positives(targets: Tensor, counted_N: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which pairs are of one class, and how many such partners every image has."""
    positive_NN = (targets[:, None] == targets[None, :]).fill_diagonal_(False)
    if counted_N is not None:
        positive_NN &= counted_N & counted_N[:, None]
    return positive_NN, positive_NN.sum(dim=1)
