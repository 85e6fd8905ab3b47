import random

import pytest
import torch
from torch import nn

import infopro
from infopro.models import cifar_resnet
from infopro.preflight import preflight

IMAGES = torch.rand(4, 3, 32, 32)


def problems(model, images=IMAGES, **options):
    found = preflight(model, images, **(options or {"num_modules": 2}))
    return bool(found), [str(problem) for problem in found.problems]


def only(found, what):
    matching = [line for line in found[1] if what in line]
    assert len(matching) == 1, found
    assert "; " in matching[0], "a remedy follows"
    return matching[0]


def test_a_sound_network_has_no_problem():
    assert problems(cifar_resnet(20, 10), num_modules=4) == (True, [])


def test_all_problems_are_listed_at_once():
    model = cifar_resnet(20, 10)
    model.conv1.weight.requires_grad_(False)
    ready, lines = problems(model, IMAGES[:1])
    assert not ready and len(lines) == 2
    assert lines[0].startswith("note: 1 parameters are frozen, conv1.weight the first; unfreeze them")
    assert lines[1].startswith("error: BatchNorm (bn1 and ") and "pass two images or more" in lines[1]


def test_wrong_inputs_and_devices():
    (line,) = problems(cifar_resnet(20, 10), IMAGES[:, :1])[1]
    assert line.startswith("error: CifarResNet cannot take the example input")
    spread = cifar_resnet(20, 10)
    spread.layer3.to("meta")
    assert "move the network and its inputs to one device" in only(problems(spread), "several devices")


def test_frozen_modules():
    model = cifar_resnet(20, 10)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("layer3", "fc")))
    found = problems(model, cuts=["layer2"])
    assert found[0] and "module 1 is frozen: only its heads would learn" in only(found, "module 1 is frozen")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert not problems(model)[0]
    assert "no trainable parameter; unfreeze some" in only(problems(model), "no trainable parameter")


def test_unsound_cuts():
    assert "'layer1.0.conv9' is not a block" in problems(cifar_resnet(20, 10), cuts=["layer1.0.conv9"])[1][0]
    ready, lines = problems(cifar_resnet(20, 10), num_modules=99)
    assert not ready and "allowed: 1 to 10" in lines[0]


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.shared = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.middle = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        x = self.shared(self.middle(self.shared(self.stem(x))))
        return self.head(x.mean((2, 3)))


def test_modules_used_twice_and_parameters_shared_across_a_cut():
    found = problems(Twice(), cuts=["middle"])
    assert found[0]
    assert "no cut can lie behind it" in only(found, "shared.0 is called 2 times in one forward")
    assert "keep them in one module" in only(found, "2 parameters are used by several modules")
    assert "error: 'shared' is called 2 times in forward" in problems(Twice(), cuts=["shared"])[1][-1]


def test_in_place_writes_on_a_boundary():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 900, 10)
    )
    found = problems(model, cuts=["1"])
    assert found[0] and "before a pipeline" in only(found, "module 2 writes in place")


class ByChance(Twice):
    def forward(self, x):
        x = self.middle(self.stem(x))
        x = self.shared(x) if random.random() > -1 else x
        return self.head(x.mean((2, 3)))


class ByValue(Twice):
    def forward(self, x):
        h = self.middle(self.stem(x))
        h = self.shared(h) if (x > -1).all() else h
        return self.head(h.mean((2, 3)))


@pytest.mark.parametrize(
    ("network", "what", "remedy"),
    [
        (ByChance, "runs live", "train in one process"),
        (ByValue, "branches on values of its inputs", "nothing"),
    ],
)
def test_data_dependent_control_flow(network, what, remedy):
    found = problems(network(), cuts=["middle"])
    assert found[0] and remedy in only(found, what)


class Unused(Twice):
    def __init__(self):
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return self.head(self.middle(self.stem(x)).mean((2, 3)))


def test_parameters_that_no_loss_reaches():
    found = problems(Unused(), cuts=["stem"])
    assert "model.mask_token" in only(found, "are reached by no loss")


def test_it_prints_and_is_true_if_nothing_stands_in_the_way():
    found = preflight(cifar_resnet(20, 10), IMAGES, num_modules=2)
    assert found and str(found) == f"ready to train; cuts: {found.cuts[0]}"
    assert not preflight(cifar_resnet(20, 10), IMAGES[:1], num_modules=2)
    assert infopro.preflight is preflight
