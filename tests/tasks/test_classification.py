"""Labels per image: loss, metric, the structures that networks return, the checks of a batch."""

from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from infopro.errors import BadConfiguration, BadInput
from infopro.tasks import Classification, Task, list_tasks

Outputs = namedtuple("Outputs", ["logits", "aux_logits2", "aux_logits1"])
LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.25, 4.0]])
OTHER = torch.tensor([[0.0, 1.0, 0.0], [3.0, 0.0, 1.0]])
TARGETS = torch.tensor([0, 1])
IMAGES = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def task(**options):
    return Classification(num_classes=3, **options)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS,),
        [LOGITS, torch.zeros(2, 7)],  # features beside the logits are no logits
        Outputs(LOGITS, None, None),
        SimpleNamespace(logits=LOGITS),
        {"out": LOGITS},
        {"logits": LOGITS, "features": OTHER},
    ],
    ids=["tensor", "tuple", "features", "namedtuple", "object", "out", "logits"],
)
def test_logits_are_found_and_alone_make_the_loss(output):
    assert task().logits(output) is LOGITS
    assert torch.equal(task().loss(output, TARGETS), F.cross_entropy(LOGITS, TARGETS))


def test_auxiliary_logits_are_weighted():
    expected = F.cross_entropy(LOGITS, TARGETS) + 0.25 * 2 * F.cross_entropy(OTHER, TARGETS)
    loss = task(auxiliary_weight=0.25).loss(Outputs(LOGITS, OTHER, OTHER), TARGETS)
    torch.testing.assert_close(loss, expected)


def test_output_without_logits_is_named():
    with pytest.raises(BadInput, match="no logits in the network's output: got dict"):
        task().logits({"features": LOGITS})


def test_loss_is_full_precision_and_double_stays_double():
    assert task().loss(LOGITS.bfloat16(), TARGETS).dtype == torch.float32
    assert task().loss(LOGITS.double(), TARGETS).dtype == torch.float64


def test_errors_count_wrong_labels():
    assert task().counts(LOGITS, torch.tensor([0, 2])).tolist() == [0, 2]
    wrong = task().counts((LOGITS, OTHER), torch.tensor([1, 1]))
    assert wrong.tolist() == [2, 2] and wrong.dtype == torch.float64 and task().num_counts == 2
    assert task().error((1, 8)) == 12.5


def test_normalisation_is_undone():
    mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    normalised = (IMAGES - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(task(mean=mean, std=std).to_unit(normalised), IMAGES, rtol=0, atol=1e-6)


def test_one_mean_serves_any_channels_and_rounding_is_clamped():
    halves = task(mean=(0.5,), std=(0.5,))
    assert torch.equal(
        halves.to_unit(torch.tensor([[-1.0, 1.0, 1.0000002]])), torch.tensor([[0.0, 1.0, 1.0]])
    )


def test_images_that_are_in_range_stay_exact():
    assert torch.equal(task().to_unit(IMAGES), IMAGES)


def test_task_saves_nothing():
    assert task().state_dict() == {}
    assert list(task().parameters()) == []


def test_wrong_normalisation_is_noticed_and_erased_patches_are_not():
    task().check_unit_range(IMAGES)
    noisy = IMAGES.clone()
    noisy[:, :, 0, 0] = -3.0
    task().check_unit_range(noisy)
    with pytest.raises(BadInput, match="100% of the pixels outside"):
        task().check_unit_range(IMAGES * 255 + 2)


def test_sound_batch_passes():
    task().check(IMAGES, TARGETS)


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (IMAGES, torch.tensor([0, 3]), "a label is out of range: got 3 at index 1; allowed: 0 to 2"),
        (IMAGES, torch.tensor([-1, 2]), "got -1 at index 0"),
        (IMAGES, torch.tensor([0, 1, 2]), r"got shape \[3\] for images \[2, 3, 4, 4\]"),
        (IMAGES, torch.tensor([[0], [1]]), r"one label per image, \[N\]"),
        (IMAGES, TARGETS.float(), "labels are not int64: got torch.float32; call labels.long()"),
        (IMAGES.to(torch.uint8), TARGETS, "images are not floating point: got torch.uint8"),
        (IMAGES[:0], TARGETS[:0], "images form no batch"),
        (IMAGES.index_fill(0, torch.tensor(1), float("nan")), TARGETS, "NaN or infinity in image 1"),
    ],
)
def test_bad_batches_are_refused(images, targets, message):
    with pytest.raises(BadInput, match=message):
        task().check(images, targets)


def test_all_problems_come_at_once():
    with pytest.raises(BadInput, match=r"2 problems in a batch: .*floating point.*out of range"):
        task().check(IMAGES.to(torch.uint8), torch.tensor([0, 7]))


def test_output_of_another_width_is_refused():
    task().check_output((LOGITS, OTHER))
    with pytest.raises(BadInput, match=r"got shape \[2, 4\]; allowed: \[N, 3\]"):
        task().check_output(torch.zeros(2, 4))


@pytest.mark.parametrize(
    "options",
    [
        {"num_classes": 0},
        {"std": (0.0,)},
        {"mean": (0.5, 0.5)},
        {"auxiliary_weight": -1.0},
        {"mean": (), "std": ()},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(BadConfiguration):
        Classification(**{"num_classes": 3, **options})


def test_classification_is_listed():
    assert "classification" in list_tasks()
    assert isinstance(task(), Task)
