import sys

import pytest
import torch

from infopro.analysis import linear
from infopro.analysis.linear import linear_error
from infopro.errors import MissingPackage


def clouds(number, seed):
    """Three overlapping Gaussian clouds in 6 dimensions, as maps [N, 6, 1, 1]."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % 3
    means = 2.0 * torch.eye(3, 6)
    return (means[labels] + torch.randn(number, 6, generator=draw))[:, :, None, None], labels


def error(train, test, **options):
    return linear_error(*train, *test, **{"penalty": 0.01, **options})


def test_the_error_is_that_of_the_best_linear_rule():
    train, test = clouds(3000, 0), clouds(3000, 1)
    found, converged = error(train, test)
    nearest = torch.cdist(test[0].flatten(1), 2.0 * torch.eye(3, 6)).argmin(dim=1)  # Bayes' rule, linear here
    assert converged
    assert found == pytest.approx(100 * (nearest != test[1]).double().mean().item(), abs=1.0)


def test_the_solution_minimises_what_is_stated():
    maps, labels = clouds(300, 0)
    vectors = maps.flatten(1).numpy()
    for penalty in (0.01, 1.0):
        solver, _ = linear._fitted(vectors, labels.numpy(), penalty)
        weights = torch.tensor(solver.coef_, dtype=torch.float64, requires_grad=True)
        bias = torch.tensor(solver.intercept_, dtype=torch.float64, requires_grad=True)
        logits = torch.tensor(vectors).double() @ weights.T + bias
        loss = torch.nn.functional.cross_entropy(logits, labels) + penalty / 2 * weights.square().sum()
        loss.backward()
        assert max(weights.grad.abs().max(), bias.grad.abs().max()) < 2e-4
        assert weights.detach().abs().max() > 0.1


def test_scale_shift_and_constant_features_do_not_matter():
    (train, labels), (test, test_labels) = clouds(300, 0), clouds(300, 1)
    expected = error((train, labels), (test, test_labels))
    moved = [
        torch.cat([1000 * maps + 50, torch.full_like(maps[:, :1], 3e4)], dim=1) for maps in (train, test)
    ]
    assert error((moved[0], labels), (moved[1], test_labels)) == expected


def test_stored_features_are_left_as_they_are():
    (train, labels), test = clouds(60, 0), clouds(60, 1)
    before = train.clone()
    error((train, labels), test)
    assert torch.equal(train, before)


def test_a_solver_that_stops_early_is_reported_without_a_warning(monkeypatch):
    monkeypatch.setattr(linear, "_ITERATIONS", (1,))
    found, converged = error(clouds(300, 0), clouds(300, 1))
    assert not converged and 0 <= found <= 100
    monkeypatch.setattr(linear, "_ITERATIONS", (1, 300))
    assert error(clouds(300, 0), clouds(300, 1))[1]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for name in [n for n in sys.modules if n.startswith("sklearn.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingPackage, match=r'needs scikit-learn.*pip install "infopro\[analysis\]"'):
        linear.require_solver()
