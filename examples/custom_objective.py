"""A new objective is one class: what heads a stage has, and what its loss is.

    python examples/custom_objective.py --steps 20

This one has each module predict the one-hot label by least squares. To give it a name on the command line,
put the classes into a file of src/infopro/objectives that declares VARIANTS: see CONTRIBUTING.md.
"""

import argparse
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import infopro
from infopro.heads import task_head
from infopro.objectives import Objective, StageObjective
from infopro.tasks import Task
from infopro.types import Batch, StageContext


class OneHotStage(StageObjective):
    def forward(self, features: Tensor, batch: Batch) -> dict[str, Tensor]:
        predicted = self.heads["task"](features).float()
        wanted = F.one_hot(batch.targets, predicted.shape[1]).float()
        loss = F.mse_loss(predicted, wanted)
        return {"task": loss, "total": loss}  # "total" is what gets differentiated


@dataclass(frozen=True, kw_only=True)
class OneHot(Objective):
    head: str = "1c2f"  # options are plain fields

    @property
    def name(self) -> str:
        return "one-hot"

    def build_local(self, context: StageContext, task: Task) -> StageObjective:
        shapes = {"feature_shape": context.feature_shape, "image_shape": context.image_shape}
        return OneHotStage(
            task=task, heads={"task": task_head(self.head, out_features=task.out_features, **shapes)}
        )


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=20)
torch.manual_seed(0)
task = infopro.tasks.Classification(num_classes=10)
model, example = infopro.models.demo_resnet(10), torch.zeros(2, 3, 32, 32)
local = infopro.localize(model, example, num_modules=3, objective=OneHot(), task=task)
optimizer = torch.optim.SGD(local.parameters(), lr=0.05, momentum=0.9)
images, labels = torch.rand(32, 3, 32, 32), torch.randint(10, (32,))
for number in range(1, parser.parse_args().steps + 1):
    optimizer.zero_grad(set_to_none=True)
    out = local.backward(images, labels)
    optimizer.step()
    print(f"step {number}:", *(f"{float(each['total']):.4f}" for each in out.losses))
