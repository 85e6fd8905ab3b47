"""Labels per pixel: loss, hard pixels, metrics, the structures that networks return, checks of a batch."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassJaccardIndex,
)

from infopro.errors import BadConfiguration, BadInput
from infopro.tasks import VOID, HardPixels, Segmentation, Task, list_tasks

CLASSES = 4


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def masks_of(*shape, classes=CLASSES, void=0.2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(classes, shape, generator=generator)
    return masks.masked_fill(torch.rand(shape, generator=generator) < void, VOID)


LOGITS = random(2, CLASSES, 6, 8)
OTHER = random(2, CLASSES, 3, 4, seed=2)
MASKS = masks_of(2, 6, 8)
IMAGES = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
ALL_VOID = torch.full_like(MASKS, VOID)
WEIGHTS = (0.5, 2.0, 0.0, 1.25)


def task(**options):
    return Segmentation(**{"num_classes": CLASSES, **options})


def torch_loss(logits, masks=MASKS, **options):
    """torch's own mean; NaN where all is void."""
    logits = F.interpolate(logits, size=masks.shape[1:], mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, masks, ignore_index=VOID, **options)


def enlarged(logits):
    return F.interpolate(logits, size=MASKS.shape[1:], mode="bilinear", align_corners=False)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_loss_is_torchs_mean_over_what_is_not_void(weights):
    logits = random(2, CLASSES, 6, 8, dtype=torch.float64).requires_grad_()
    loss = task(class_weights=weights).loss(logits, MASKS)
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    expected = F.cross_entropy(logits, MASKS, weight=given, ignore_index=VOID)
    torch.testing.assert_close(loss, expected)
    pairs = [torch.autograd.grad(value, logits)[0] for value in (loss, expected)]
    torch.testing.assert_close(*pairs)
    assert (pairs[0].abs().sum(dim=1)[MASKS == VOID] == 0).all()


def test_logits_of_another_size_are_resized():
    torch.testing.assert_close(task().loss(OTHER, MASKS), torch_loss(OTHER))
    larger = random(2, CLASSES, 9, 17)
    torch.testing.assert_close(task().loss(larger, MASKS), torch_loss(larger))


@pytest.mark.parametrize("options", [{}, {"class_weights": WEIGHTS}, {"hard_pixels": HardPixels()}])
@pytest.mark.parametrize("size", [(6, 8), (3, 4)])
def test_all_void_gives_exactly_zero_with_a_gradient_of_zero(options, size):
    logits = random(2, CLASSES, *size).requires_grad_()
    loss = task(**options).loss((logits, 2 * logits), ALL_VOID)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_one_image_of_void_does_not_matter():
    half = torch.stack([MASKS[0], ALL_VOID[0]])
    torch.testing.assert_close(task().loss(LOGITS, half), torch_loss(LOGITS[:1], MASKS[:1]))


def test_classes_of_weight_zero_alone_give_zero():
    only = torch.full_like(MASKS, 2)
    logits = LOGITS.clone().requires_grad_()
    loss = task(class_weights=WEIGHTS).loss(logits, only)
    loss.backward()
    assert loss.item() == 0.0 and torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS,),
        [LOGITS, torch.zeros(2, CLASSES)],  # classes of the image are no map
        (LOGITS, random(2, 7, 3, 4), None),  # features neither
        (LOGITS, torch.zeros(2, CLASSES, 6, 8, dtype=torch.int64)),
        SimpleNamespace(logits=LOGITS, hidden_states=(OTHER,)),
        {"out": LOGITS},
        {"logits": LOGITS, "hidden_states": (OTHER,)},
    ],
    ids=["tensor", "tuple", "image", "features", "integers", "object", "out", "logits"],
)
def test_logits_are_found_and_alone_make_the_loss(output):
    assert task().logits(output) is LOGITS
    assert torch.equal(task().loss(output, MASKS), task().loss(LOGITS, MASKS))
    task().check_output(output)


@pytest.mark.parametrize(
    "output",
    [
        {"out": LOGITS, "aux": OTHER},  # torchvision
        {"aux": OTHER, "out": LOGITS},
        (LOGITS, OTHER),
        [LOGITS, torch.zeros(2, CLASSES), OTHER],
    ],
    ids=["torchvision", "order", "tuple", "image"],
)
def test_further_maps_of_any_size_are_weighted(output):
    assert task().logits(output) is LOGITS
    expected = torch_loss(LOGITS) + 0.4 * torch_loss(OTHER)
    torch.testing.assert_close(task().loss(output, MASKS), expected)
    torch.testing.assert_close(task(auxiliary_weight=0).loss(output, MASKS), torch_loss(LOGITS))


def test_deep_supervision_adds_every_map():
    maps = [LOGITS, OTHER, random(2, CLASSES, 2, 2, seed=5)]
    expected = torch_loss(LOGITS) + 0.25 * (torch_loss(OTHER) + torch_loss(maps[2]))
    torch.testing.assert_close(task(auxiliary_weight=0.25).loss(maps, MASKS), expected)


def test_output_without_logits_is_named():
    with pytest.raises(BadInput, match="no logits in the network's output: got dict"):
        task().logits({"features": LOGITS})


def test_loss_is_full_precision_and_double_stays_double():
    assert task().loss(LOGITS.bfloat16(), MASKS).dtype == torch.float32
    assert task().loss(OTHER.bfloat16(), MASKS).dtype == torch.float32
    assert task(class_weights=WEIGHTS).loss(OTHER.double(), MASKS).dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = task(hard_pixels=HardPixels()).loss((LOGITS, OTHER), MASKS)
    assert torch.equal(inside, task(hard_pixels=HardPixels()).loss((LOGITS, OTHER), MASKS))


def by_sorting(logits, masks, threshold, least, weights=None):
    """Hard pixels one by one, in plain Python."""
    logs = F.log_softmax(logits, dim=1)
    found = []
    for n, row, column in (masks != VOID).nonzero().tolist():
        true = int(masks[n, row, column])
        found.append((logs[n, true, row, column].item(), 1.0 if weights is None else weights[true]))
    found.sort()
    hard = [pair for rank, pair in enumerate(found) if rank < least or pair[0] < math.log(threshold)]
    return -sum(weight * log for log, weight in hard) / sum(weight for _, weight in hard)


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.0, 1.25)])
@pytest.mark.parametrize(
    ("threshold", "least"), [(0.7, 1), (0.2, 1), (0.001, 5), (0.001, 1), (0.1, 60), (1.0, 1), (0.01, 100_000)]
)
def test_hard_pixels_are_those_of_a_plain_implementation(threshold, least, weights):
    logits = 3 * random(2, CLASSES, 6, 8, dtype=torch.float64)
    loss = task(hard_pixels=HardPixels(threshold, least), class_weights=weights).loss(logits, MASKS)
    assert loss.item() == pytest.approx(by_sorting(logits, MASKS, threshold, least, weights), rel=1e-9)


def test_hard_pixels_of_all_or_more_than_there_are_is_the_plain_loss():
    for hard in (HardPixels(1.0, 1), HardPixels(1e-6, MASKS.numel()), HardPixels(1e-6, 10**9)):
        assert torch.equal(task(hard_pixels=hard).loss(LOGITS, MASKS), task().loss(LOGITS, MASKS))
    few = HardPixels(1e-6, 3)
    assert task(hard_pixels=few).loss(LOGITS, MASKS) > task().loss(LOGITS, MASKS)


def test_only_hard_pixels_get_a_gradient():
    logits = LOGITS.clone().requires_grad_()
    task(hard_pixels=HardPixels(1e-6, 5)).loss(logits, MASKS).backward()
    assert (logits.grad.abs().sum(dim=1) > 0).sum() == 5


CASES = {
    "random": (LOGITS, MASKS),
    "small logits": (OTHER, MASKS),
    "no void": (LOGITS, masks_of(2, 6, 8, void=0.0)),
    "right everywhere": (
        F.one_hot(masks_of(2, 6, 8, void=0.0), CLASSES).permute(0, 3, 1, 2).float(),
        masks_of(2, 6, 8, void=0.0),
    ),
    "one class": (LOGITS, torch.full_like(MASKS, 3)),
    "class never true": (LOGITS, masks_of(2, 6, 8, classes=CLASSES - 1)),
    "class never true nor predicted": (
        LOGITS.index_fill(1, torch.tensor(3), -99.0),
        masks_of(2, 6, 8, classes=CLASSES - 1),
    ),
    "one class and nothing else": (LOGITS.index_fill(1, torch.tensor(0), 99.0), torch.zeros_like(MASKS)),
}


def metrics():
    common = {"num_classes": CLASSES, "ignore_index": VOID}
    return {
        "mean": MulticlassJaccardIndex(average="macro", **common),
        "classes": MulticlassJaccardIndex(average="none", **common),
        "accuracy": MulticlassAccuracy(average="micro", **common),
        "counts": MulticlassConfusionMatrix(**common),
    }


@pytest.mark.parametrize("case", CASES)
def test_metrics_are_torchmetrics(case):
    logits, masks = CASES[case]
    counts, oracle = task().counts(logits, masks), metrics()
    for metric in oracle.values():
        metric.update(enlarged(logits), masks)
    assert counts.dtype == torch.float64 and counts.shape == (task().num_counts,)
    assert torch.equal(counts.view(CLASSES, CLASSES).long(), oracle["counts"].compute())
    numbers, scores = counts.tolist(), task().scores(counts.tolist())
    assert scores["mean_iou"] == pytest.approx(100 * oracle["mean"].compute().item(), rel=1e-5)
    assert task().error(numbers) == 100 - scores["mean_iou"]
    assert scores["pixel_accuracy"] == pytest.approx(100 * oracle["accuracy"].compute().item(), rel=1e-5)
    for index, iou in enumerate(scores["class_iou"]):
        if iou is None:
            found = (enlarged(logits).argmax(dim=1) == index) & (masks != VOID)
            assert not found.any() and not (masks == index).any()
        else:
            assert iou == pytest.approx(100 * oracle["classes"].compute()[index].item(), rel=1e-5)


def test_counts_add_up_over_batches():
    whole = task().counts(LOGITS, MASKS)
    parts = [task().counts(LOGITS[i : i + 1], MASKS[i : i + 1]) for i in range(2)]
    assert torch.equal(sum(parts), whole)
    assert whole.sum() == (MASKS != VOID).sum()


def test_counts_read_the_prediction_only_and_build_no_graph():
    logits = LOGITS.clone().requires_grad_()
    counts = task().counts({"out": logits, "aux": OTHER}, MASKS)
    assert torch.equal(counts, task().counts(LOGITS, MASKS)) and not counts.requires_grad


def test_nothing_to_judge_is_no_nan():
    counts = task().counts(LOGITS, ALL_VOID).tolist()
    assert counts == [0.0] * CLASSES**2
    assert task().error(counts) == 100.0
    assert task().scores(counts) == {
        "mean_iou": 0.0,
        "pixel_accuracy": 0.0,
        "class_iou": [None] * CLASSES,
    }


def test_scores_by_hand():
    scores = Segmentation(num_classes=3).scores([3.0, 1.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0])
    assert scores == {
        "mean_iou": pytest.approx(100 * (3 / 4 + 4 / 5) / 2),
        "pixel_accuracy": 87.5,
        "class_iou": [75.0, 80.0, None],
    }


def test_task_saves_nothing():
    weighted = task(class_weights=WEIGHTS)
    assert weighted.state_dict() == {} and list(weighted.parameters()) == []


def test_weights_follow_the_task():
    assert torch.equal(task(class_weights=WEIGHTS).double().class_weights, torch.tensor(WEIGHTS).double())


def test_sound_batches_pass():
    task().check(IMAGES, MASKS)
    task().check(IMAGES, ALL_VOID)


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (
            IMAGES,
            MASKS.index_put((torch.tensor(1), torch.tensor(2), torch.tensor(5)), torch.tensor(7)),
            r"out of range: got 7 in image 1 at row 2, column 5; allowed: 0 to 3, or 255 for void; "
            r"correct the masks, or pass num_classes=8",
        ),
        (
            IMAGES,
            torch.full_like(MASKS, 300),
            "got 300 in image 0 at row 0, column 0.*give void",
        ),
        (IMAGES, torch.full_like(MASKS, -1), "got -1 in image 0 at row 0, column 0.*give void the value 255"),
        (IMAGES, MASKS[:1], r"got shape \[1, 6, 8\] for images \[2, 3, 6, 8\]; allowed: \[N, H, W\]"),
        (IMAGES, MASKS[:, :3], r"got shape \[2, 3, 8\] for images"),
        (IMAGES, MASKS[:, None], r"got shape \[2, 1, 6, 8\] for images"),
        (IMAGES, torch.tensor([0, 1]), r"masks do not fit their images: got shape \[2\]"),
        (IMAGES[:, 0], MASKS, r"for images \[2, 6, 8\]"),
        (IMAGES, MASKS.to(torch.uint8), "masks are not int64: got torch.uint8; call masks.long()"),
        (IMAGES.to(torch.uint8), MASKS, "images are not floating point: got torch.uint8"),
        (IMAGES[:0], MASKS[:0], "images form no batch"),
        (IMAGES.index_fill(0, torch.tensor(1), float("nan")), MASKS, "NaN or infinity in image 1"),
    ],
)
def test_bad_batches_are_refused(images, masks, message):
    with pytest.raises(BadInput, match=message):
        task().check(images, masks)


def test_all_problems_come_at_once():
    with pytest.raises(BadInput, match=r"2 problems in a batch: .*floating point.*out of range"):
        task().check(IMAGES.to(torch.uint8), torch.full_like(MASKS, 9))


def test_output_of_another_shape_is_refused():
    task().check_output((LOGITS, OTHER))
    with pytest.raises(BadInput, match=r"got shape \[2, 5, 6, 8\]; allowed: \[N, 4, h, w\]"):
        task().check_output(torch.zeros(2, 5, 6, 8))
    with pytest.raises(BadInput, match=r"got shape \[2, 4\]; allowed: \[N, 4, h, w\]"):
        task().check_output(torch.zeros(2, 4))


@pytest.mark.parametrize(
    "options",
    [
        {"num_classes": 0},
        {"num_classes": 256},
        {"std": (0.0,)},
        {"mean": (0.5, 0.5)},
        {"auxiliary_weight": -1.0},
        {"class_weights": (1.0, 1.0)},
        {"class_weights": (1.0, 1.0, 1.0, -1.0)},
        {"class_weights": (1.0, 1.0, 1.0, float("inf"))},
        {"class_weights": (0.0,) * CLASSES},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(BadConfiguration):
        task(**options)


@pytest.mark.parametrize("options", [{"threshold": 0.0}, {"threshold": 1.5}, {"least": 0}])
def test_bad_hard_pixels_are_refused(options):
    with pytest.raises(BadConfiguration):
        HardPixels(**options)


def test_segmentation_is_listed():
    assert "segmentation" in list_tasks()
    assert isinstance(task(), Task) and task().dense
