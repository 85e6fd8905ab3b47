"""Linear separability: the test error of multinomial logistic regression on frozen features."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from infopro.analysis.examples import view_of
from infopro.errors import MissingPackage

__all__ = ["linear_error", "require_solver"]

_ITERATIONS = (300, 3000)  # of L-BFGS, tried in turn


def linear_error(
    train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, *, penalty: float
) -> tuple[float, bool]:
    """Test error in %, and whether the solver converged, of a linear classifier.

    Every number is standardised by the training images' mean and standard deviation, to at most ±10
    deviations. scikit-learn's L-BFGS then minimises mean cross-entropy + penalty/2 ‖weights‖²: a convex
    problem with one solution, so there is no seed.

    Shapes:
        train [N, C, h, w] float32, labels [N]; test [M, C, h, w], test_labels [M].

    Raises:
        MissingPackage: scikit-learn is not installed.

    Example:
        >>> import torch
        >>> maps = torch.tensor([-1.0, -2.0, 1.0, 2.0]).view(4, 1, 1, 1)
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> linear_error(maps, labels, maps, labels, penalty=0.01)
        (0.0, True)
    """
    numbers, test_numbers = (maps.flatten(1)[:, :, None, None] for maps in (train, test))
    view = view_of(numbers, (1, 1))
    vectors, test_vectors = (view.of(part).flatten(1).numpy() for part in (numbers, test_numbers))
    solver, converged = _fitted(vectors, labels.numpy(), penalty)
    wrong = solver.predict(test_vectors) != test_labels.numpy()
    return 100.0 * float(wrong.mean()), converged


def _fitted(vectors: NDArray[np.float32], labels: NDArray[np.int64], penalty: float) -> tuple[Any, bool]:
    models, unconverged = require_solver()
    for iterations in _ITERATIONS:
        solver = models.LogisticRegression(C=1.0 / (penalty * len(vectors)), max_iter=iterations)
        with warnings.catch_warnings(record=True) as caught, _one_thread():
            warnings.simplefilter("always")
            solver.fit(vectors, labels)
        if not any(issubclass(warning.category, unconverged) for warning in caught):
            return solver, True
    return solver, False


def _one_thread() -> Any:
    """Sums depend on the number of threads, and on a busy machine threads wait for each other."""
    return importlib.import_module("threadpoolctl").threadpool_limits(1)  # scikit-learn needs it, too


def require_solver() -> tuple[Any, type[Warning]]:
    """scikit-learn's linear models and its warning of an optimisation that did not converge.

    Raises:
        MissingPackage: scikit-learn is not installed.
    """
    try:
        models = importlib.import_module("sklearn.linear_model")
        exceptions = importlib.import_module("sklearn.exceptions")
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == "sklearn"
        raise MissingPackage(
            "scikit-learn",
            extra="analysis",
            purpose="linear separability",
            reason=None if absent else str(error),
        ) from error
    return models, exceptions.ConvergenceWarning
