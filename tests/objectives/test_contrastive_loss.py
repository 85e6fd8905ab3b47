"""The supervised contrastive loss: hand values, invariances, special batches, an independent oracle."""

import math

import pytest
import torch
from pytorch_metric_learning.losses import SupConLoss

from infopro.objectives import supervised_contrastive

LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 2, 2])


def embeddings(num_images=8, size=5, dtype=torch.float64):
    return torch.randn(num_images, size, generator=torch.Generator().manual_seed(3), dtype=dtype)


def by_definition(features, targets, temperature):
    """Khosla et al., equation 2, one term at a time; 0 for an image without positives."""
    unit = [row / row.norm() for row in features]
    total = 0.0
    for i, anchor in enumerate(unit):
        others = [j for j in range(len(unit)) if j != i]
        scores = {j: float(anchor @ unit[j]) / temperature for j in others}
        denominator = math.log(sum(math.exp(score) for score in scores.values()))
        positives = [j for j in others if targets[j] == targets[i]]
        total -= sum(scores[j] - denominator for j in positives) / max(len(positives), 1)
    return total / len(unit)


@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.0])
@pytest.mark.parametrize(
    "targets", [LABELS, torch.tensor([0, 0, 1, 2, 3, 3, 3, 4])], ids=["paired", "lonely"]
)
def test_equals_the_definition(temperature, targets):
    value = supervised_contrastive(embeddings(), targets, temperature=temperature)
    assert value.item() == pytest.approx(by_definition(embeddings(), targets, temperature), rel=1e-12)


def test_hand_values():
    pairs = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.1]], dtype=torch.float64)
    together = supervised_contrastive(pairs, torch.tensor([0, 0, 1, 1]), temperature=1.0)
    apart = supervised_contrastive(pairs, torch.tensor([0, 1, 0, 1]), temperature=1.0)
    assert together.item() == pytest.approx(math.log(1 + 2 / math.e), rel=1e-12)
    assert apart.item() == pytest.approx(math.log(math.e + 2), rel=1e-12)


def test_two_images_of_a_class_have_nothing_to_tell_apart():
    assert supervised_contrastive(embeddings(2), torch.tensor([4, 4])).item() == pytest.approx(0.0, abs=1e-12)


def test_agrees_with_pytorch_metric_learning():
    features = embeddings(dtype=torch.float32)
    oracle = SupConLoss(temperature=0.07)(features, LABELS)
    torch.testing.assert_close(supervised_contrastive(features, LABELS), oracle, rtol=1e-5, atol=0)


def test_image_without_positives_counts_as_zero_in_the_mean():
    targets = torch.tensor([0, 0, 1, 1, 1, 2, 3, 0])
    oracle = SupConLoss(temperature=0.07)(embeddings(), targets)  # leaves the two out of the mean
    torch.testing.assert_close(supervised_contrastive(embeddings(), targets), oracle * 6 / 8)


@pytest.mark.parametrize("num_images", [1, 5])
def test_batch_without_positives_is_zero_with_a_zero_gradient(num_images):
    features = embeddings(num_images).requires_grad_()
    loss = supervised_contrastive(features, torch.arange(num_images))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_scale_of_an_embedding_does_not_matter():
    scales = torch.logspace(-2, 2, 8, dtype=torch.float64)[:, None]
    first = supervised_contrastive(embeddings(), LABELS)
    torch.testing.assert_close(supervised_contrastive(embeddings() * scales, LABELS), first)


def test_order_and_names_of_classes_do_not_matter():
    order = torch.tensor([5, 0, 7, 2, 1, 6, 3, 4])
    renamed = torch.tensor([90, -4, 3])[LABELS]
    first = supervised_contrastive(embeddings(), LABELS)
    torch.testing.assert_close(supervised_contrastive(embeddings()[order], renamed[order]), first)


def test_small_temperature_does_not_overflow():
    features = embeddings(dtype=torch.float32).requires_grad_()
    loss = supervised_contrastive(features, LABELS, temperature=1e-3)
    loss.backward()
    assert loss.isfinite() and features.grad.isfinite().all()


@pytest.mark.parametrize(
    "targets", [LABELS, torch.tensor([0, 0, 1, 2, 3, 3, 3, 4])], ids=["paired", "lonely"]
)
def test_gradient_is_the_derivative(targets):
    features = embeddings().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: supervised_contrastive(x, targets), (features,))


def test_autocast_does_not_lower_the_precision():
    features = embeddings(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = supervised_contrastive(features, LABELS)
    assert torch.equal(inside, supervised_contrastive(features, LABELS))
    assert supervised_contrastive(features.bfloat16(), LABELS).dtype == torch.float32


def test_nothing_of_the_size_of_all_pairs_is_kept():
    num_images, kept = 64, []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        supervised_contrastive(embeddings(num_images).requires_grad_(), torch.arange(num_images) % 4)
    assert 0 < max(kept) < num_images**2


COUNTED = torch.tensor([True, True, True, False, True, False, True, True])


@pytest.mark.parametrize(
    "targets", [LABELS, torch.tensor([0, 0, 1, 2, 3, 3, 3, 4])], ids=["paired", "lonely"]
)
def test_rows_that_do_not_count_are_not_there(targets):
    given, fewer = (embeddings().requires_grad_() for _ in range(2))
    masked = supervised_contrastive(given, targets, counted=COUNTED)
    plain = supervised_contrastive(fewer[COUNTED], targets[COUNTED])
    torch.testing.assert_close(masked, plain)
    torch.testing.assert_close(*(torch.autograd.grad(v, f)[0] for v, f in ((masked, given), (plain, fewer))))
    assert masked.item() != supervised_contrastive(given, targets).item()


def test_all_counted_is_the_plain_loss():
    everything = torch.ones(8, dtype=torch.bool)
    counted = supervised_contrastive(embeddings(), LABELS, counted=everything)
    torch.testing.assert_close(counted, supervised_contrastive(embeddings(), LABELS), rtol=1e-14, atol=0)


@pytest.mark.parametrize("num_counted", [0, 1])
def test_nothing_to_compare_is_zero_with_a_zero_gradient(num_counted):
    features = embeddings().requires_grad_()
    loss = supervised_contrastive(features, torch.zeros(8), counted=torch.arange(8) < num_counted)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_gradient_of_counted_rows_is_the_derivative():
    features = embeddings().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: supervised_contrastive(x, LABELS, counted=COUNTED), (features,))
