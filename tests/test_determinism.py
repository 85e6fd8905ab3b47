import os

import pytest
import torch

from infopro.determinism import deterministic
from infopro.errors import BadConfiguration


def state():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


@pytest.fixture(params=["as it starts", "set by its user"])
def before(request, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", request.param != "as it starts")
    if request.param != "as it starts":
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    yield state()
    torch.use_deterministic_algorithms(False)


def test_everything_is_put_back(before):
    with deterministic():
        workspace = before[-1] or ":4096:8"
        assert state() == (True, False, True, False, workspace)
        with deterministic():
            pass
        assert state() == (True, False, True, False, workspace)
    assert state() == before
    with pytest.raises(KeyboardInterrupt), deterministic():
        raise KeyboardInterrupt
    assert state() == before
    with deterministic(False):
        assert state() == before


def test_an_operation_without_such_a_kernel_is_named(before):
    with (
        pytest.raises(BadConfiguration, match=r"no deterministic kernel.*: got put_; leave --det"),
        deterministic(),
    ):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))
    with pytest.raises(BadConfiguration, match=":4096:8 or :16:8"), deterministic():
        raise RuntimeError("Deterministic behavior ... set CUBLAS_WORKSPACE_CONFIG=:4096:8")
    with pytest.raises(RuntimeError, match=r"^another$") as caught, deterministic():
        raise RuntimeError("another")
    assert caught.value.__cause__ is None
    assert state() == before
