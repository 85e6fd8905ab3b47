import pytest
import torch
from torch import nn

import infopro
from infopro.errors import BadInput
from infopro.memory.output_task import OutputTask, task_for
from infopro.tasks import Classification, Segmentation

IMAGES = torch.zeros(2, 3, 8, 12)
MAPS = torch.zeros(2, 5, 4, 6)


def test_logits_of_an_image_are_classified() -> None:
    task = task_for(torch.zeros(2, 7), IMAGES)
    assert isinstance(task, Classification) and task.num_classes == 7


@pytest.mark.parametrize("output", [MAPS, {"out": MAPS, "aux": MAPS}, [MAPS, torch.zeros(2, 5, 2, 3)]])
def test_maps_of_images_are_segmented(output: object) -> None:
    task = task_for(output, IMAGES)
    assert isinstance(task, Segmentation) and task.num_classes == 5
    assert task.auxiliary_weight == 0.4


@pytest.mark.parametrize(
    ("output", "inputs", "classes"),
    [
        (torch.zeros(2, 9, 7), torch.zeros(2, 9), 7),  # of each token
        (MAPS, torch.zeros(2, 9), 5),  # a map that no image's mask would fit
        ((MAPS, torch.zeros(2, 3)), IMAGES, 5),  # a map and a label
        (torch.zeros(2, 5, 4, 4, 4), torch.zeros(2, 1, 4, 4, 4), 5),
    ],
)
def test_whatever_else_is_predicted_costs_its_cross_entropy(
    output: object, inputs: torch.Tensor, classes: int
) -> None:
    task = task_for(output, inputs)
    assert isinstance(task, OutputTask) and task.out_features == classes


def test_an_output_without_a_prediction_is_refused() -> None:
    with pytest.raises(BadInput, match="holds no prediction"):
        task_for({"count": 3}, IMAGES)


def test_targets_have_the_tasks_shape() -> None:
    labels = Classification(num_classes=3).made_up_targets(IMAGES)
    masks = Segmentation(num_classes=3).made_up_targets(IMAGES)
    assert labels.shape == (2,) and masks.shape == (2, 8, 12)
    assert labels.dtype == masks.dtype == torch.int64 and not labels.any() and not masks.any()


def _block(channels: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 8, 3, stride, 1), nn.BatchNorm2d(8), nn.ReLU())


class Dense(nn.Module):
    """Logits at half the image's size, beside auxiliary ones."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(_block(3 if i == 0 else 8, stride=2 if i == 0 else 1) for i in range(4))
        )
        self.auxiliary, self.head = nn.Conv2d(8, 5, 1), nn.Conv2d(8, 5, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.blocks(x)
        return {"out": self.head(features), "aux": self.auxiliary(features)}


def test_a_plan_of_a_segmentation_network_is_what_its_training_keeps() -> None:
    model, task, shape = Dense(), Segmentation(num_classes=5), (3, 3, 32, 48)
    objective = infopro.objectives.InfoPro()
    plan = infopro.plan(model, torch.zeros(shape), num_modules=[2], objective=objective, device="cpu")
    whole = infopro.localize(
        model, torch.rand(shape), num_modules=1, objective=infopro.objectives.EndToEnd(), task=task
    )
    cuts = plan.local(2).cuts
    halves = infopro.localize(model, torch.rand(shape), cuts=cuts, objective=objective, task=task)
    masks = torch.randint(5, (3, 32, 48))
    for local, row in ((whole, plan.end_to_end), (halves, plan.local(2))):
        measured = infopro.memory.measure(local, torch.rand(shape), masks)
        assert row.step.saved == measured.saved.per_module


def test_a_segmentation_network_is_ready_to_train_without_a_task_being_named() -> None:
    found = infopro.preflight(Dense(), torch.rand(2, 3, 16, 16), cuts=["blocks.1"])
    assert found and found.problems == ()
