"""The networks of step.py, and what a method is built from: network, batch, task, device, precision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

import infopro
from infopro.memory import Planner
from infopro.memory.output_task import OutputTask
from infopro.objectives import Objective
from infopro.tasks import Classification, Task

__all__ = ["NETWORKS", "PRECISIONS", "Network", "Setting"]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Network:
    """A network and the batches that it is measured with."""

    title: str
    build: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    task: Task
    batch_size: int  # on a GPU, and where a step is predicted
    small_batch_size: int | None = None  # on a CPU; None: too large to be measured there


def _cifar(name: str, title: str, small: int) -> Network:
    ten = Classification(num_classes=10)
    return Network(title, lambda: infopro.models.create(name, num_classes=10), (3, 32, 32), ten, 1024, small)


def _imagenet(name: str, title: str, batch_size: int, small: int | None = None) -> Network:
    thousand = Classification(num_classes=1000)

    def build() -> nn.Module:
        model: nn.Module = infopro.models.create(f"timm/{name}", num_classes=1000)
        return model

    return Network(title, build, (3, 224, 224), thousand, batch_size, small)


def _deeplab() -> nn.Module:
    from torchvision.models.segmentation import deeplabv3_resnet101

    model: nn.Module = deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=19, aux_loss=True)
    return model


NETWORKS = {
    "resnet20": _cifar("cifar_resnet20", "ResNet-20, 32 px", 16),
    "resnet32": _cifar("cifar_resnet32", "ResNet-32, 32 px", 64),
    "resnet110": _cifar("cifar_resnet110", "ResNet-110, 32 px", 32),
    "densenet": _cifar("cifar_densenet_bc_100_12", "DenseNet-BC-100-12, 32 px", 16),
    "resnet50": _imagenet("resnet50", "ResNet-50, 224 px", 128, 8),
    "resnet101": _imagenet("resnet101", "ResNet-101, 224 px", 128),
    "resnet152": _imagenet("resnet152", "ResNet-152, 224 px", 128),
    "vit-s": _imagenet("vit_small_patch16_224", "ViT-S/16, 224 px", 128, 8),
    "vit-b": _imagenet("vit_base_patch16_224", "ViT-B/16, 224 px", 128),
    "vit-l": _imagenet("vit_large_patch16_224", "ViT-L/16, 224 px", 64),
    "deeplabv3-r101": Network(
        "DeepLabV3-R101, 512x1024", _deeplab, (3, 512, 1024), OutputTask(19), batch_size=8
    ),
}


@dataclass
class Setting:
    """What every method of one comparison has in common."""

    network: Network
    batch_size: int
    device: torch.device
    precision: str = "float32"
    dtype: torch.dtype = torch.float32  # of weights and images

    def __post_init__(self) -> None:
        self._planners: dict[Objective, Planner] = {}

    @property
    def task(self) -> Task:
        return self.network.task

    def model(self) -> nn.Module:
        """A fresh network, the same weights every time."""
        torch.manual_seed(0)
        model = self.network.build().to(self.device, self.dtype)
        return model.to(memory_format=torch.channels_last)

    @cached_property
    def images(self) -> Tensor:
        drawn = torch.rand(self.batch_size, *self.network.shape, generator=torch.Generator().manual_seed(0))
        return drawn.to(self.device, self.dtype, memory_format=torch.channels_last)

    @cached_property
    def targets(self) -> Tensor:
        """Two images of each class, at most ten classes: a contrastive loss finds its positives."""
        return torch.arange(self.batch_size, device=self.device) % max(1, min(10, self.batch_size // 2))

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def planner(self, objective: Objective) -> Planner:
        """Chooses the cuts for an objective, and predicts steps."""
        if objective not in self._planners:
            self._planners[objective] = Planner(
                self.network.build(),
                (torch.empty(self.batch_size, *self.network.shape, device="meta"),),
                objective=objective,
                task=self.task,
                precision=PRECISIONS[self.precision],
                on_cuda=self.device.type == "cuda",
            )
        return self._planners[objective]
