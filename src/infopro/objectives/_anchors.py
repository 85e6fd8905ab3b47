"""Which positions of dense projections a contrastive loss compares.

Legend: N batch, D projection, H W the mask, h w the map, K drawn positions.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from infopro.tasks import VOID

__all__ = ["draw_anchors"]


def draw_anchors(projections: Tensor, masks: Tensor, *, most: int) -> tuple[Tensor, Tensor]:
    """At most `most` positions of a batch, each class as likely as any other, void last.

    Without replacement, with weights 1 / pixels of the class: the exponential race of Efraimidis and Spirakis
    (2006), the Gumbel top-k in other words. It draws from torch's stream of the device, and waits for no
    value. The rows keep the order of the positions.

    Shapes:
        projections [N, D, h, w], masks [N, H, W] int64 -> rows [K, D] and labels [K], K = min(most, N·h·w);
        a label is 255 where the batch has fewer pixels that are not void.

    Example:
        >>> projections, masks = torch.arange(4.0).view(1, 1, 2, 2), torch.tensor([[[0, 255], [1, 1]]])
        >>> draw_anchors(projections, masks, most=4)[0].flatten().tolist()
        [0.0, 1.0, 2.0, 3.0]
    """
    labels_Nhw = _at_size(masks, (projections.shape[2], projections.shape[3]))
    drawn_K = _drawn(labels_Nhw.flatten(), most)
    image, row, column = _unravelled(drawn_K, labels_Nhw.shape[1], labels_Nhw.shape[2])
    # indexed where it stands: a projection of every pixel is large, and only K rows are needed
    return projections.permute(0, 2, 3, 1)[image, row, column], labels_Nhw.flatten()[drawn_K]


def _at_size(masks_NHW: Tensor, size: tuple[int, int]) -> Tensor:
    """The class at the middle of each position; float32 is exact up to 255, and far beyond."""
    if tuple(masks_NHW.shape[1:]) == size:
        return masks_NHW
    resized = F.interpolate(masks_NHW[:, None].float(), size=size, mode="nearest-exact")
    return resized[:, 0].long()


def _drawn(labels: Tensor, most: int) -> Tensor:
    one = torch.ones(1, device=labels.device)
    pixels_of = torch.zeros(VOID + 1, device=labels.device).scatter_add_(0, labels, one.expand(len(labels)))
    arrival = torch.empty(labels.shape, device=labels.device).exponential_() * pixels_of[labels]
    arrival = arrival.masked_fill(labels == VOID, math.inf)
    first = arrival.topk(min(most, len(labels)), largest=False, sorted=False).indices
    return first.sort().values


def _unravelled(places: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    column, rest = places % width, places // width
    return rest // height, rest % height, column
