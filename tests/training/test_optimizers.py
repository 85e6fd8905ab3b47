import pytest
import torch
from torch import nn

from infopro.errors import UnknownName
from infopro.training import list_optimizers, make_optimizer


def weights():
    return nn.Parameter(torch.tensor([1.0, -2.0]))


def test_sgd_is_the_papers():
    weight, reference = weights(), weights()
    ours = make_optimizer("sgd", [weight], learning_rate=0.1, weight_decay=1e-4)
    theirs = torch.optim.SGD([reference], lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)
    for _ in range(3):
        for parameter, optimizer in ((weight, ours), (reference, theirs)):
            parameter.grad = parameter.detach().sin()
            optimizer.step()
    assert torch.equal(weight, reference)


def test_sgd_without_momentum_is_plain():
    weight = weights()
    optimizer = make_optimizer("sgd", [weight], learning_rate=0.5, weight_decay=0.0, momentum=0.0)
    weight.grad = torch.tensor([1.0, 1.0])
    optimizer.step()
    assert torch.equal(weight.detach(), torch.tensor([0.5, -2.5]))


def test_adamw_decays_weights_apart_from_the_gradient():
    weight = weights()
    optimizer = make_optimizer("adamw", [weight], learning_rate=0.1, weight_decay=0.5)
    weight.grad = torch.zeros(2)
    optimizer.step()
    assert torch.allclose(weight.detach(), torch.tensor([0.95, -1.9]))


@pytest.mark.parametrize("name", list_optimizers())
def test_frozen_parameters_are_left_out(name):
    frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
    optimizer = make_optimizer(name, [weights(), frozen], learning_rate=0.1, weight_decay=0.0)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1]


def test_unknown_optimizers_are_explained():
    with pytest.raises(UnknownName, match="unknown optimizer: got 'adam'; did you mean adamw"):
        make_optimizer("adam", [weights()], learning_rate=0.1, weight_decay=0.0)
