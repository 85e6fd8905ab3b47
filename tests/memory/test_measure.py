"""Saved bytes are a fact about the graph: exact numbers, computed by hand."""

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import infopro
from infopro.memory import measure_saved_bytes, saved_storages, summarize_stages
from infopro.models import cifar_resnet
from infopro.objectives import EndToEnd, Greedy, InfoPro

BATCH, FLOAT, LABEL = 5, 4, 8  # images, bytes per number
# log-probabilities, labels, and the sum of the class weights
CROSS_ENTROPY = BATCH * 3 * FLOAT + BATCH * LABEL + FLOAT


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def convolutions():
    torch.manual_seed(0)
    block = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(*block, nn.Conv2d(4, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * 36, 3))


def localize(model, shape, *, num_classes=3, **where):
    task = infopro.tasks.Classification(num_classes=num_classes)
    return infopro.localize(model, torch.rand(2, *shape), task=task, **where)


def batch(*shape, size=BATCH):
    return torch.rand(size, *shape), torch.arange(size) % 3


def test_perceptron_end_to_end():
    local = localize(perceptron(), (4,), objective=EndToEnd())
    inputs, hidden = BATCH * 4 * FLOAT, BATCH * 8 * FLOAT
    # ReLU's result is the second layer's input: one storage, counted once; weights are not counted
    assert measure_saved_bytes(local, *batch(4)).per_module == (inputs + hidden + CROSS_ENTROPY,)


def test_perceptron_in_two_modules():
    local = localize(perceptron(), (4,), cuts=["1"], objective=Greedy())
    inputs, hidden = BATCH * 4 * FLOAT, BATCH * 8 * FLOAT
    pooled = hidden  # the head's linear layer reads a copy that its average pool made
    found = measure_saved_bytes(local, *batch(4))
    assert found.per_module == (inputs + hidden + pooled + CROSS_ENTROPY, hidden + CROSS_ENTROPY)
    assert found.largest == inputs + hidden + pooled + CROSS_ENTROPY


def test_convolutions_end_to_end():
    local = localize(convolutions(), (3, 6, 6), objective=EndToEnd())
    image, wide, narrow = (BATCH * channels * 36 * FLOAT for channels in (3, 4, 2))
    # first convolution's input; BatchNorm's input, mean and deviation; ReLU's result; linear layer's input
    expected = image + (wide + 2 * 4 * FLOAT) + wide + narrow + CROSS_ENTROPY
    assert measure_saved_bytes(local, *batch(3, 6, 6)).per_module == (expected,)


def test_a_module_that_is_not_trained_saves_nothing_of_its_own():
    model = perceptron()
    local = localize(model, (4,), cuts=["1"], objective=Greedy())
    model[0].requires_grad_(False)
    hidden = BATCH * 8 * FLOAT
    assert measure_saved_bytes(local, *batch(4)).per_module == (hidden + CROSS_ENTROPY,) * 2


@pytest.mark.parametrize("size", [4, 8])
def test_one_module_equals_a_direct_count(size):
    torch.manual_seed(0)
    local = localize(cifar_resnet(20, 3), (3, 16, 16), objective=EndToEnd())
    images, labels = batch(3, 16, 16, size=size)
    owned = {t.untyped_storage().data_ptr() for t in (*local.model.parameters(), *local.model.buffers())}
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        nn.functional.cross_entropy(local.model(images), labels)
    expected = sum(size for address, size in storages.items() if address not in owned)
    assert measure_saved_bytes(local, images, labels).per_module == (expected,)


def test_measuring_leaves_no_trace():
    torch.manual_seed(0)
    local = localize(cifar_resnet(20, 3), (3, 16, 16), num_modules=4, balance="depth", objective=InfoPro())
    state = {name: value.clone() for name, value in local.state_dict().items()}
    random_state = torch.get_rng_state()
    first = measure_saved_bytes(local, *batch(3, 16, 16))
    torch.set_rng_state(random_state)
    with torch.no_grad():
        assert measure_saved_bytes(local, *batch(3, 16, 16)) == first
    torch.set_rng_state(random_state)
    measure_saved_bytes(local, *(torch.zeros(2, 3, 16, 16), torch.tensor([0, 1])))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(p.grad is None for p in local.parameters())
    assert all(torch.equal(value, state[name]) for name, value in local.state_dict().items())


def test_collecting_ends_with_the_block():
    model = perceptron()
    with saved_storages(model) as sizes:
        model(torch.rand(2, 4)).sum().backward()
    during = dict(sizes)
    model(torch.rand(2, 4)).sum().backward()
    assert sizes == during and sum(sizes.values()) == 2 * (4 + 8) * FLOAT


def test_rows_of_the_split():
    model = perceptron()
    local = localize(model, (4,), cuts=["1"], objective=Greedy())
    rows = summarize_stages(local, *batch(4))
    assert [row.index for row in rows] == [0, 1]
    assert [row.blocks for row in rows] == [("0", "1"), ("2",)]
    assert [row.parameters for row in rows] == [4 * 8 + 8, 8 * 3 + 3]
    assert [row.head_parameters for row in rows] == [8 * 3 + 3, 0]
    assert tuple(row.saved_bytes for row in rows) == measure_saved_bytes(local, *batch(4)).per_module
    assert [row.feature_shape for row in rows] == [(8,), (3,)]


def test_rows_add_up_to_the_network():
    torch.manual_seed(0)
    local = localize(cifar_resnet(20, 3), (3, 16, 16), num_modules=4, balance="depth", objective=InfoPro())
    rows = summarize_stages(local, *batch(3, 16, 16))
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in local.model.parameters())
    total = sum(row.parameters + row.head_parameters for row in rows)
    assert total == sum(p.numel() for p in local.parameters())
    assert [row.feature_shape for row in rows] == [*local.split.boundary_shapes, (3,)]
