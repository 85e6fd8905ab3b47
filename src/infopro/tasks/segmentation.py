"""One label per pixel.

Legend: N batch, C classes, H W the mask's rows and columns, h w those of the logits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infopro.errors import BadConfiguration, BadInput
from infopro.heads import at_least_float32
from infopro.tasks._base import Task
from infopro.tasks._checks import image_problems, raise_all

__all__ = ["VOID", "HardPixels", "Segmentation"]

VOID = 255  # what a mask holds where nothing is to be learned or judged


@dataclass(frozen=True)
class HardPixels:
    """Which pixels the loss is the mean of: online hard example mining (Shrivastava et al., CVPR 2016).

    Kept is every pixel whose true class has a probability below `threshold`; and where those are fewer than
    `least` in a batch, the `least` hardest (all of one probability count as one). Void is never kept.

    Raises:
        BadConfiguration: a threshold outside (0, 1], less than one pixel.
    """

    threshold: float = 0.7
    least: int = 100_000  # pixels of a batch, all images together

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise BadConfiguration(
                "threshold is not a probability", got=self.threshold, allowed="above 0, up to 1"
            )
        if self.least < 1:
            raise BadConfiguration("least is not positive", got=self.least, allowed="1 pixel or more")

    def among(self, loss_NHW: Tensor, judged_NHW: Tensor) -> Tensor:
        """Which of the judged pixels are hard, of each pixel's cross-entropy; no device is waited for."""
        probability = torch.exp(-loss_NHW.detach()).masked_fill(~judged_NHW, math.inf)
        least = min(self.least, probability.numel())
        limit = probability.flatten().topk(least, largest=False, sorted=False).values.amax()
        return judged_NHW & ((probability < self.threshold) | (probability <= limit))


class Segmentation(Task):
    """Cross-entropy of every pixel, void (255) left out; judged by the mean intersection over union.

    Args:
        num_classes: masks hold 0 .. num_classes - 1, or 255.
        mean: per image channel, how the input was normalised: (image in [0, 1] - mean) / std.
        std: per image channel.
        auxiliary_weight: of each further map of logits in a network's output: 0.4 as of the auxiliary FCN
            head in InfoPro's code and in PSPNet (Zhao et al., CVPR 2017); torchvision's training script
            has 0.5.
        class_weights: per class; the loss is then the weighted mean, as torch's.
        hard_pixels: mean over the hard pixels only.

    Raises:
        BadConfiguration: not 1 to 255 classes, a negative weight, not one weight per class, a `std` that is
            not positive.

    Example:
        >>> import torch
        >>> from infopro.tasks import Segmentation
        >>> task = Segmentation(num_classes=2)
        >>> logits = torch.tensor([[[[5.0, 5.0, 0.0]], [[0.0, 0.0, 5.0]]]])  # 0 0 1
        >>> counts = task.counts(logits, torch.tensor([[[0, 255, 0]]])).tolist()
        >>> counts  # of true class 0: one pixel predicted as 0, one as 1
        [1.0, 1.0, 0.0, 0.0]
        >>> task.error(counts), task.scores(counts)["class_iou"]
        (75.0, [50.0, 0.0])
    """

    dense = True
    class_weights: Tensor | None

    def __init__(
        self,
        *,
        num_classes: int,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        auxiliary_weight: float = 0.4,
        class_weights: Sequence[float] | None = None,
        hard_pixels: HardPixels | None = None,
    ):
        _check_options(num_classes, auxiliary_weight, class_weights)
        super().__init__(out_features=num_classes, mean=mean, std=std)
        self.num_classes = num_classes
        self.num_counts = num_classes**2
        self.auxiliary_weight = auxiliary_weight
        self.hard_pixels = hard_pixels
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        """Mean over the pixels that are not void, plus that of auxiliary logits times `auxiliary_weight`.

        Without any such pixel it is 0, and so is its gradient.

        Shapes:
            output holding [N, C, h, w], brought to the mask's size; targets [N, H, W] int64 -> scalar, at
            least float32.
        """
        main, *auxiliary = _all_logits(output)
        loss = self._loss_of_one(main, targets)
        for logits in auxiliary:
            loss = loss + self.auxiliary_weight * self._loss_of_one(logits, targets)
        return loss

    def logits(self, output: Any) -> Tensor:
        """The network's prediction [N, C, h, w], of a tensor or of any structure that networks return.

        A tensor is itself; of a tuple or list the first tensor, of a dict "logits" or "out" (other maps of as
        many channels in either are auxiliary logits, of any size); `.logits` of an object.

        Raises:
            BadInput: none of these.
        """
        return _all_logits(output)[0]

    def counts(self, output: Any, targets: Tensor) -> Tensor:
        """Pixels by true class and predicted class: the confusion matrix, row by row; void is not counted.

        The prediction is the largest logit at the mask's size.
        """
        logits = _at_size(self.logits(output).detach(), targets)
        places = targets * self.num_classes + logits.argmax(dim=1)
        # torchmetrics' matrix needs the pixels that are left without void, and so waits for the device: it
        # is what the tests compare with. Here void has a place of its own, which is cut off
        places = places.masked_fill(targets == VOID, self.num_counts).flatten()
        counts = torch.zeros(self.num_counts + 1, dtype=torch.float64, device=places.device)
        return counts.scatter_add_(0, places, torch.ones_like(counts[:1]).expand(len(places)))[:-1]

    def error(self, counts: Sequence[float]) -> float:
        """100 - mean intersection over union, in %, over the classes in masks or predictions."""
        return 100.0 - self._mean_iou(counts)

    def scores(self, counts: Sequence[float]) -> dict[str, Any]:
        """`mean_iou`, `pixel_accuracy`, and `class_iou` by class (None: it occurs nowhere), all in %."""
        right = sum(counts[:: self.num_classes + 1])
        return {
            "mean_iou": self._mean_iou(counts),
            "pixel_accuracy": 100.0 * right / max(sum(counts), 1.0),
            "class_iou": self._class_iou(counts),
        }

    def check(self, images: Tensor, targets: Tensor) -> None:
        """Raises BadInput, all problems in one message, where a batch cannot be trained on.

        Images: floating point, [N, C, H, W], finite. Targets: int64 [N, H, W], classes or void.
        """
        raise_all([*image_problems(images), *_target_problems(images, targets, self.num_classes)])

    def check_output(self, output: Any) -> None:
        """Raises BadInput unless the network predicts [N, num_classes, h, w]."""
        logits = self.logits(output)
        if logits.ndim != 4 or logits.shape[1] != self.num_classes:
            raise BadInput(
                "the network's output does not fit the task",
                got=f"shape {list(logits.shape)}",
                allowed=f"[N, {self.num_classes}, h, w]",
                remedy="build a segmentation network with as many outputs as the task has classes",
            )

    def _loss_of_one(self, logits: Tensor, targets: Tensor) -> Tensor:
        # not torch's own mean: that is NaN where all is void
        loss_NHW = F.cross_entropy(_at_size(logits, targets), targets, ignore_index=VOID, reduction="none")
        weight_NHW = self._pixel_weights(loss_NHW, targets)
        total = weight_NHW.sum()
        return (loss_NHW * weight_NHW).sum() / total.masked_fill(total == 0, 1.0)

    def _pixel_weights(self, loss_NHW: Tensor, targets: Tensor) -> Tensor:
        counted_NHW = targets != VOID
        if self.hard_pixels is not None:
            counted_NHW = self.hard_pixels.among(loss_NHW, counted_NHW)
        if self.class_weights is None:
            return counted_NHW.to(loss_NHW.dtype)
        # void reads some class's weight, which is then multiplied by 0
        weight_NHW = self.class_weights.to(loss_NHW.dtype)[targets.clamp(max=self.num_classes - 1)]
        return weight_NHW * counted_NHW

    def _class_iou(self, counts: Sequence[float]) -> list[float | None]:
        found: list[float | None] = []
        for index in range(self.num_classes):
            both = counts[index * (self.num_classes + 1)]
            true = sum(counts[index * self.num_classes : (index + 1) * self.num_classes])
            either = true + sum(counts[index :: self.num_classes]) - both
            found.append(100.0 * both / either if either else None)
        return found

    def _mean_iou(self, counts: Sequence[float]) -> float:
        found = [iou for iou in self._class_iou(counts) if iou is not None]
        return sum(found) / len(found) if found else 0.0


def _at_size(logits: Tensor, targets: Tensor) -> Tensor:
    """The logits in at least float32, at the mask's size."""
    size = targets.shape[-2:]
    logits = at_least_float32(logits)
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def _all_logits(output: Any) -> list[Tensor]:
    """The logits, then the auxiliary ones."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Sequence) and output and isinstance(output[0], Tensor):
        return [output[0], *_maps_like(output[0], output[1:])]
    for name in ("logits", "out"):
        found = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(found, Tensor):
            others = [v for key, v in output.items() if key != name] if isinstance(output, Mapping) else []
            return [found, *_maps_like(found, others)]
    raise BadInput(
        "no logits in the network's output",
        got=type(output).__name__,
        allowed='a tensor, a tuple that begins with one, .logits, or a dict with "logits" or "out"',
        remedy="wrap the network so that it returns its logits",
    )


def _maps_like(logits: Tensor, others: Sequence[Any]) -> list[Tensor]:
    maps = [o for o in others if isinstance(o, Tensor) and o.ndim == logits.ndim == 4]
    return [m for m in maps if m.shape[1] == logits.shape[1] and m.is_floating_point()]


def _target_problems(images: Tensor, targets: Tensor, num_classes: int) -> list[BadInput]:
    if targets.dtype != torch.int64:
        return [BadInput("masks are not int64", got=targets.dtype, remedy="call masks.long()")]
    if images.ndim != 4 or targets.shape != (len(images), *images.shape[2:]):
        shapes = f"shape {list(targets.shape)} for images {list(images.shape)}"
        return [BadInput("masks do not fit their images", got=shapes, allowed="[N, H, W] of [N, C, H, W]")]
    outside = (targets != VOID) & ((targets < 0) | (targets >= num_classes))
    if not outside.any():
        return []
    image, row, column = (int(place) for place in outside.nonzero()[0])
    return [
        BadInput(
            "a mask holds a class out of range",
            got=f"{targets[image, row, column].item()} in image {image} at row {row}, column {column}",
            allowed=f"0 to {num_classes - 1}, or {VOID} for void",
            remedy=_remedy(targets),
        )
    ]


def _remedy(targets: Tensor) -> str:
    needed = int(targets.masked_fill(targets == VOID, 0).max()) + 1
    if targets.min() >= 0 and needed <= VOID:
        return f"correct the masks, or pass num_classes={needed}"
    return f"number the classes from 0, and give void the value {VOID}"


def _check_options(num_classes: int, auxiliary_weight: float, class_weights: Sequence[float] | None) -> None:
    if not 1 <= num_classes <= VOID:
        raise BadConfiguration("num_classes is out of range", got=num_classes, allowed=f"1 to {VOID}")
    if auxiliary_weight < 0:
        raise BadConfiguration("auxiliary_weight is negative", got=auxiliary_weight, allowed="0 or more")
    if class_weights is None:
        return
    weights = list(class_weights)
    sound = all(math.isfinite(w) and w >= 0 for w in weights) and any(weights)
    if len(weights) != num_classes or not sound:
        raise BadConfiguration(
            "class_weights does not fit the classes",
            got=weights,
            allowed=f"{num_classes} finite numbers of 0 or more, one of them above 0",
        )
