import pytest
import torch
import torch.nn.functional as F
from torchmetrics.functional.classification import multiclass_jaccard_index

from infopro.errors import BadInput
from infopro.prediction import MULTI_SCALE, Inference, evaluate_dense, probabilities
from infopro.tasks import Classification, Segmentation
from infopro.training import evaluate

VOID = 255


def masks(*shape):
    found = torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(1))
    found[:, 0, :2] = VOID
    return found


def batches(images):
    sizes = ((2, 9, 12), (1, 7, 5))  # images of another size may come
    return [(images(n, 3, *size, seed=n), masks(n, *size)) for n, *size in sizes]


def test_by_default_it_is_the_plain_evaluation(neighbourhood, images, task):
    found = evaluate_dense(neighbourhood, task, batches(images))
    expected = evaluate(neighbourhood, task, batches(images))
    assert (found.error, found.num_images, found.scores) == (expected.error, 3, expected.scores)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert neighbourhood.training


def test_the_metric_is_that_of_the_averaged_probabilities(neighbourhood, images, task):
    inference = Inference(scales=MULTI_SCALE, flip=True, window=(6, 6))
    found = evaluate_dense(neighbourhood, task, batches(images), inference=inference)
    predicted, truth, losses = [], [], 0.0
    for batch, target in batches(images):
        likely = probabilities(neighbourhood, batch, task=task, inference=inference)
        predicted.append(likely.argmax(dim=1).flatten())
        truth.append(target.flatten())
        losses += len(batch) * float(F.nll_loss(likely.log(), target, ignore_index=VOID))
    expected = multiclass_jaccard_index(torch.cat(predicted), torch.cat(truth), 3, ignore_index=VOID)
    assert found.error == pytest.approx(100 - 100 * float(expected), rel=1e-6)
    assert found.loss == pytest.approx(losses / 3, rel=1e-5)
    assert found.error != evaluate_dense(neighbourhood, task, batches(images)).error


def test_a_certain_network_that_is_wrong_has_a_finite_loss(pointwise, task):
    certain = torch.full((1, 3, 2, 2), -1e4)
    certain[:, 0] = 1e4
    found = evaluate_dense(pointwise, task, [(certain, torch.ones(1, 2, 2, dtype=torch.int64))])
    assert found.error == 100.0 and 80 < found.loss < 100


def test_weights_of_classes_count(pointwise, images):
    task = Segmentation(num_classes=3, class_weights=[1.0, 2.0, 0.0])
    batch, target = images(1, 3, 8, 8), masks(1, 8, 8)
    found = evaluate_dense(pointwise, task, [(batch, target)])
    assert found.loss == pytest.approx(float(task.loss(batch, target)), rel=1e-5)


def test_numbers_that_are_no_images_are_refused(pointwise, images):
    with pytest.raises(BadInput, match="not a normalised batch"):
        evaluate_dense(pointwise, Classification(num_classes=3), [(images(2, 3), torch.zeros(2).long())])
