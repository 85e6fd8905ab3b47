"""Where one objective must equal another, and where it must not."""

import pytest
import torch
import torch.nn.functional as F

from infopro.errors import BadConfiguration, BadInput, BadSplit
from infopro.objectives import (
    DGL,
    EndToEnd,
    Greedy,
    InfoPro,
    reconstruction_loss,
    supervised_contrastive,
)
from infopro.tasks import Classification
from infopro.types import Batch, StageContext

MEAN, STD = (0.5, 0.4, 0.6), (0.2, 0.25, 0.3)
TASK = Classification(num_classes=3, mean=MEAN, std=STD)
CONTEXT = StageContext(index=0, num_stages=3, feature_shape=(6, 4, 4), image_shape=(3, 8, 8))
UNIT = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
IMAGES = (UNIT - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
BATCH = Batch(images=IMAGES, targets=torch.tensor([0, 1, 2, 0, 1, 2]))


def run(objective):
    """The stage, its losses and the gradient of the features, from the same random state."""
    torch.manual_seed(5)
    stage = objective.build(CONTEXT, TASK)
    features = torch.randn(6, 6, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    losses = stage(features, BATCH)
    losses["total"].backward()
    return stage, losses, features


def test_infopro_without_reconstruction_weight_is_greedy():
    greedy_stage, greedy, greedy_features = run(Greedy())
    stage, losses, features = run(InfoPro(reconstruction_weight=0, task_head="0c1f"))
    assert torch.equal(losses["total"], greedy["total"])
    assert torch.equal(features.grad, greedy_features.grad)
    for name, value in greedy_stage.heads["task"].named_parameters():
        assert torch.equal(stage.heads["task"].get_parameter(name).grad, value.grad)


def test_weight_of_zero_records_the_reconstruction_and_trains_with_exactly_zero():
    stage, losses, _ = run(InfoPro(reconstruction_weight=0))
    assert losses["reconstruction"].item() > 0.1
    for value in stage.heads["reconstruction"].parameters():
        assert torch.equal(value.grad, torch.zeros_like(value))


def test_task_weight_of_zero_trains_by_reconstruction_alone():
    stage, losses, features = run(InfoPro(reconstruction_weight=2, task_weight=0, task_loss="contrast"))
    assert torch.equal(losses["total"], 2 * losses["reconstruction"])
    assert features.grad.abs().sum() > 0
    for value in stage.heads["task"].parameters():
        assert torch.equal(value.grad, torch.zeros_like(value))


def test_reconstruction_changes_the_gradient_of_the_features():
    _, _, without = run(InfoPro(reconstruction_weight=0))
    _, _, with_it = run(InfoPro(reconstruction_weight=1))
    _, _, no_decoder = run(InfoPro(reconstruction_weight=None))
    assert not torch.equal(without.grad, with_it.grad)
    assert torch.equal(without.grad, no_decoder.grad)


def test_no_weight_builds_no_decoder():
    stage, losses, _ = run(InfoPro(reconstruction_weight=None))
    assert list(stage.heads) == ["task"]
    assert list(losses) == ["task", "total"]


@pytest.mark.parametrize("task_loss", ["softmax", "contrast"])
def test_total_is_the_weighted_sum_of_unweighted_losses(task_loss):
    stage, losses, features = run(InfoPro(task_loss=task_loss, reconstruction_weight=3, task_weight=0.5))
    assert list(stage.heads) == ["reconstruction", "task"]
    decoded = stage.heads["reconstruction"](features)
    torch.testing.assert_close(losses["reconstruction"], reconstruction_loss(decoded, UNIT))
    output = stage.heads["task"](features)
    expected = supervised_contrastive if task_loss == "contrast" else F.cross_entropy
    torch.testing.assert_close(losses["task"], expected(output, BATCH.targets))
    torch.testing.assert_close(losses["total"], 3 * losses["reconstruction"] + 0.5 * losses["task"])


def test_contrast_head_projects_to_its_size():
    stage, _, features = run(InfoPro(task_loss="contrast", projection_size=7))
    assert stage.heads["task"](features).shape == (6, 7)


def test_dgl_is_greedy_with_another_head():
    _, dgl, _ = run(DGL(task_head="0c1f"))
    _, greedy, _ = run(Greedy())
    _, published, _ = run(DGL())
    assert torch.equal(dgl["total"], greedy["total"])
    assert not torch.equal(published["total"], greedy["total"])


@pytest.mark.parametrize("objective", [EndToEnd(), Greedy(), DGL(), InfoPro(), InfoPro(task_loss="contrast")])
def test_last_stage_is_the_plain_loss(objective):
    context = StageContext(index=0, num_stages=1, feature_shape=(3,), image_shape=(3, 8, 8))
    stage = objective.build(context, TASK)
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(2))
    losses = stage(logits, BATCH)
    assert list(stage.heads) == []
    assert list(losses) == ["task", "total"]
    assert torch.equal(losses["total"], F.cross_entropy(logits, BATCH.targets))


def test_end_to_end_has_no_local_loss():
    assert EndToEnd().num_modules == 1
    with pytest.raises(BadSplit, match="end-to-end training has no local loss: got 3 modules"):
        EndToEnd().build(CONTEXT, TASK)


def test_images_that_cannot_be_reconstructed_are_noticed_only_with_a_decoder():
    other = Batch(images=IMAGES * 50, targets=BATCH.targets)
    run(InfoPro())[0].check(BATCH)
    run(Greedy())[0].check(other)
    run(InfoPro(reconstruction_weight=None))[0].check(other)
    with pytest.raises(BadInput, match="with mean and std undone they leave"):
        run(InfoPro())[0].check(other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task_loss": "triplet"}, "unknown task_loss: got 'triplet'; allowed: softmax, contrast"),
        ({"temperature": 0.0}, "temperature is not positive"),
        ({"projection_size": 0}, "projection_size is not positive"),
        ({"anchors": 0}, "anchors is not positive: got 0; allowed: 1 or more"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(BadConfiguration, match=message):
        InfoPro(**options)
