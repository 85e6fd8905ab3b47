"""Information propagation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from infopro.errors import BadConfiguration
from infopro.heads import Decoder, check_decoder_name, check_task_head_name, decoder, task_head
from infopro.objectives._anchors import draw_anchors
from infopro.objectives._base import Objective, StageObjective
from infopro.objectives._losses import reconstruction_loss_of_logits, supervised_contrastive
from infopro.objectives._weights import Weight, module_weight, plain_weight
from infopro.tasks import VOID, Task
from infopro.types import Batch, StageContext

__all__ = ["VARIANTS", "InfoPro", "InfoProStage"]


@dataclass(frozen=True, kw_only=True)
class InfoPro(Objective):
    """Each local module keeps what the image says: λ1 · reconstruction + λ2 · task loss.

    The tractable bound of Wang, Ni, Song, Yang, Huang, ICLR 2021 (arXiv 2101.10832): I(h, x) is estimated by
    a decoder's binary cross-entropy against the augmented image in [0, 1], I(h, y) by the task's loss of a
    task head ("softmax") or by a supervised contrastive loss of its normalised projection ("contrast").

    Args:
        task_loss: "softmax" or "contrast". Contrast needs large batches: its positives are the other images
            of the class in the batch.
        reconstruction_weight: λ1. A number for every local module, a pair (first, last) interpolated linearly
            over the K - 1 local modules, or K - 1 numbers. A weight of 0 builds and records the decoder but
            trains with a gradient of 0; None builds no decoder.
        task_weight: λ2, written in the same ways.
        task_head: a name of `infopro.heads.list_task_heads()`, or "auto" ("1c2f" for small images, "fcn" for
            a dense task).
        decoder: a name of `infopro.heads.list_decoders()`, or "auto".
        temperature: of the contrastive loss.
        projection_size: numbers per image, or per position of a dense task, that the contrastive loss
            compares.
        anchors: of a dense task with the contrastive loss, which compares at most so many positions of a
            batch: drawn anew for every batch, each class as likely as any other, never void. The paper has
            no such form.

    The default weights are those of the published CIFAR-10 cell for ResNet-32 at K = 2 (5 and 1), with λ1
    falling to 0.5 at the last local module as for ResNet-110 at K = 16; the paper tunes both per cell.

    Raises:
        BadConfiguration: a value out of range; when built, weights whose number does not fit K, or a head for
            pixels where the task is not dense.
        UnknownName: no such head or decoder.

    Example:
        >>> from infopro.tasks import Classification
        >>> objective = InfoPro(task_loss="contrast", reconstruction_weight=(6, 1), task_weight=(0, 2))
        >>> context = StageContext(index=1, num_stages=4, feature_shape=(16, 8, 8), image_shape=(3, 32, 32))
        >>> stage = objective.build(context, Classification(num_classes=10))
        >>> stage.reconstruction_weight, stage.task_weight
        (3.5, 1.0)
        >>> list(stage.heads)
        ['reconstruction', 'task']
    """

    task_loss: Literal["softmax", "contrast"] = "softmax"
    reconstruction_weight: Weight | None = (5.0, 0.5)
    task_weight: Weight = 1.0
    task_head: str = "auto"
    decoder: str = "auto"
    temperature: float = 0.07
    projection_size: int = 128
    anchors: int = 1024

    def __post_init__(self) -> None:
        for name in ("reconstruction_weight", "task_weight"):
            value = getattr(self, name)
            if value is not None or name == "task_weight":
                object.__setattr__(self, name, plain_weight(name, value))
        check_task_head_name(self.task_head)
        check_decoder_name(self.decoder)
        self._check_contrast()

    @property
    def name(self) -> str:
        return f"infopro-{self.task_loss}"

    def build_local(self, context: StageContext, task: Task) -> StageObjective:
        place = {"index": context.index, "num_local": context.num_stages - 1}
        weight = self.reconstruction_weight
        if weight is not None:
            weight = module_weight("reconstruction_weight", weight, **place)
        return InfoProStage(
            task=task,
            heads=self._heads(context, task),
            reconstruction_weight=weight,
            task_weight=module_weight("task_weight", self.task_weight, **place),
            temperature=self.temperature if self.task_loss == "contrast" else None,
            anchors=self.anchors,
        )

    def _heads(self, context: StageContext, task: Task) -> dict[str, nn.Module]:
        shapes = {"feature_shape": context.feature_shape, "image_shape": context.image_shape}
        outputs = self.projection_size if self.task_loss == "contrast" else task.out_features
        # drawn first: the same seed then gives the same task head with and without a decoder
        head = task_head(self.task_head, out_features=outputs, dense=task.dense, **shapes)
        if self.reconstruction_weight is None:
            return {"task": head}
        return {"reconstruction": decoder(self.decoder, **shapes), "task": head}

    def _check_contrast(self) -> None:
        if self.task_loss not in ("softmax", "contrast"):
            raise BadConfiguration("unknown task_loss", got=repr(self.task_loss), allowed="softmax, contrast")
        if not self.temperature > 0:
            raise BadConfiguration("temperature is not positive", got=self.temperature, allowed="above 0")
        for name in ("projection_size", "anchors"):
            if getattr(self, name) < 1:
                raise BadConfiguration(
                    f"{name} is not positive", got=getattr(self, name), allowed="1 or more"
                )


class InfoProStage(StageObjective):
    """λ1 · reconstruction + λ2 · task loss; no decoder where `reconstruction_weight` is None."""

    def __init__(
        self,
        *,
        task: Task,
        heads: dict[str, nn.Module],
        reconstruction_weight: float | None,
        task_weight: float,
        temperature: float | None,
        anchors: int,
    ):
        super().__init__(task=task, heads=heads)
        self.reconstruction_weight = reconstruction_weight
        self.task_weight = task_weight
        self.temperature = temperature  # None: the task's own loss instead of the contrastive one
        self.anchors = anchors

    @property
    def reads_images(self) -> bool:
        return self.reconstruction_weight is not None

    def forward(self, features: Any, batch: Batch) -> dict[str, Tensor]:
        task_loss = self._task_loss(features, batch)
        total = self.task_weight * task_loss
        if self.reconstruction_weight is None:
            return {"task": task_loss, "total": total}
        logits = self.decoder.logits(features)
        reconstruction = reconstruction_loss_of_logits(logits, self.task.to_unit(batch.images))
        total = self.reconstruction_weight * reconstruction + total
        return {"reconstruction": reconstruction, "task": task_loss, "total": total}

    @property
    def decoder(self) -> Decoder:
        """The net that draws the image; there is none where `reconstruction_weight` is None."""
        found = self.heads["reconstruction"]
        assert isinstance(found, Decoder)
        return found

    def check(self, batch: Batch) -> None:
        """Raises BadInput where the images, their normalisation undone, cannot be reconstructed."""
        if self.reconstruction_weight is not None:
            self.task.check_unit_range(batch.images)

    def _task_loss(self, features: Tensor, batch: Batch) -> Tensor:
        output = self.heads["task"](features)
        if self.temperature is None:
            return self.task.loss(output, batch.targets)
        rows, targets = output, batch.targets
        if self.task.dense:
            rows, targets = draw_anchors(output, targets, most=self.anchors)
        if self.gather is not None:
            rows, targets = self.gather(rows, targets)
        counted = targets != VOID if self.task.dense else None
        return supervised_contrastive(rows, targets, temperature=self.temperature, counted=counted)

    def extra_repr(self) -> str:
        return (
            f"reconstruction_weight={self.reconstruction_weight}, task_weight={self.task_weight}, "
            f"temperature={self.temperature}, anchors={self.anchors}"
        )


VARIANTS: dict[str, tuple[type[Objective], dict[str, Any]]] = {
    "infopro-softmax": (InfoPro, {"task_loss": "softmax"}),
    "infopro-contrast": (InfoPro, {"task_loss": "contrast"}),
}
