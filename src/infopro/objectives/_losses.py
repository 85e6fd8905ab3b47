"""The loss functions, pure: tensors in, one scalar out, in at least float32 whatever the autocast."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from infopro.heads import at_least_float32

__all__ = ["reconstruction_loss", "supervised_contrastive"]


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


def supervised_contrastive(features: Tensor, targets: Tensor, *, temperature: float = 0.07) -> Tensor:
    """Supervised contrastive loss of a batch with one view per image (Khosla et al., NeurIPS 2020, eq. 2).

    Positives are the other images of the class in the batch. An image without any contributes 0 to the mean
    over the batch, as the reference values of InfoPro's published code demand (pytorch-metric-learning leaves
    it out of the mean); a batch without any positives gives 0, with a gradient of 0. The published base
    temperature equals the temperature: its factor is 1.

    Args:
        features: any scale; rows are L2-normalised here.
        targets: class labels.
        temperature: that the cosine similarities are divided by.

    Shapes:
        features [N, D], targets [N] -> scalar, nats.

    Example:
        >>> import torch
        >>> pairs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> value = supervised_contrastive(pairs, torch.tensor([0, 0, 1, 1]), temperature=1.0)
        >>> round(value.item(), 4)  # log(1 + 2 / e)
        0.5514
    """
    with torch.autocast(features.device.type, enabled=False):
        unit_ND = F.normalize(at_least_float32(features), dim=1)
        similarity_NN = (unit_ND / temperature) @ unit_ND.T
        # an image is no partner of its own; a finite fill keeps the gradient of a batch of one from being NaN
        similarity_NN.fill_diagonal_(torch.finfo(similarity_NN.dtype).min)
        positive_NN = (targets[:, None] == targets[None, :]).fill_diagonal_(False)
        num_positives_N = positive_NN.sum(dim=1)
        positive_sum_N = similarity_NN.masked_fill(~positive_NN, 0.0).sum(dim=1)
        loss_N = similarity_NN.logsumexp(dim=1) - positive_sum_N / num_positives_N.clamp(min=1)
        return loss_N.masked_fill(num_positives_N == 0, 0.0).mean()
