"""The metric of a network that predicts a class for every pixel, looked at in a given way."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from infopro.prediction.scales import Inference, probabilities
from infopro.tasks import Task
from infopro.training import Evaluation
from infopro.training.evaluation import Tally, evaluation_of

__all__ = ["evaluate_dense"]


@torch.no_grad()
def evaluate_dense(
    model: nn.Module,
    task: Task,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    inference: Inference | None = None,
) -> Evaluation:
    """The task's error, loss and further metrics, of averaged probabilities.

    SS, MS and MS + flip of InfoPro's Table 5 (Wang et al., ICLR 2021, arXiv 2101.10832) are `Inference()`,
    `Inference(scales=MULTI_SCALE)` and the same with `flip=True`. The loss is the task's, of the logarithms
    of the averaged probabilities. Until the end nothing waits for the device.

    Shapes: batches of (float32 [N, channels, H, W], int64 [N, H, W]); sizes may differ from batch to batch.

    Example:
        >>> import torch
        >>> from infopro.tasks import Segmentation
        >>> batch = torch.tensor([[[[3.0, 0.0]], [[0.0, 3.0]]]]), torch.tensor([[[0, 1]]])
        >>> evaluate_dense(torch.nn.Identity(), Segmentation(num_classes=2), [batch]).error
        0.0
    """
    tally, count = Tally(task), 0
    for images, masks in batches:
        found = probabilities(model, images, task=task, inference=inference)
        smallest = torch.finfo(found.dtype).tiny  # a probability that was rounded to 0 has no logarithm
        tally.add(found.clamp_min(smallest).log(), masks)
        count += len(images)
    return evaluation_of(task, tally.values(), count)
