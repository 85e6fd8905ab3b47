import pytest
import torch
from torch import nn

import infopro
from infopro.analysis import blocks_of, modules_of_blocks
from infopro.errors import BadInput, UnknownName
from infopro.models.cifar_resnet import CifarResNet

IMAGES = torch.zeros(2, 3, 16, 16)


def network():
    return CifarResNet(blocks=(2, 1, 1), widths=(4, 8, 8), num_classes=3, in_channels=3)


def test_blocks_are_the_stem_and_the_residual_blocks_in_order():
    assert blocks_of(network(), IMAGES) == ("relu", "layer1.0", "layer1.1", "layer2.0", "layer3.0")


def test_blocks_of_a_plain_network_end_with_their_activations():
    mlp = nn.Sequential(
        nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    )
    assert blocks_of(mlp, IMAGES) == ("2", "4", "5")


def test_a_network_without_parts_is_explained():
    with pytest.raises(BadInput, match="Linear shows no blocks"):
        blocks_of(nn.Linear(5, 3), torch.zeros(2, 5))


def test_modules_of_blocks_agree_with_the_split():
    model = network()
    task = infopro.tasks.Classification(num_classes=3)
    local = infopro.localize(
        model, IMAGES, cuts=["layer1.0", "layer2.0"], objective=infopro.objectives.Greedy(), task=task
    )
    modules = modules_of_blocks(model, IMAGES, blocks=blocks_of(model, IMAGES), cuts=local.split.cuts)
    assert list(modules.values()) == [1, 1, 2, 2, 3]
    assert [modules[cut] for cut in local.split.cuts] == [1, 2]


def test_a_module_inside_a_block_belongs_to_the_module_in_which_it_returns():
    inside = modules_of_blocks(
        network(), IMAGES, blocks=["layer1.0.conv1", "layer1.1.conv2", "layer1"], cuts=["layer1.0"]
    )
    assert inside == {"layer1.0.conv1": 1, "layer1.1.conv2": 2, "layer1": 2}


def test_end_to_end_is_one_module():
    assert modules_of_blocks(network(), IMAGES, blocks=["layer3.0"], cuts=[]) == {"layer3.0": 1}


def test_unknown_blocks_are_named():
    with pytest.raises(UnknownName, match=r"unknown block: got 'layer9'"):
        modules_of_blocks(network(), IMAGES, blocks=["layer9"], cuts=[])
