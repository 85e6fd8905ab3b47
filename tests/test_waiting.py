"""No step waits for the device: nothing in it asks for a tensor's value."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import infopro
from infopro.data import Augmentation, ImageData, ImageTensors
from infopro.models.cifar_resnet import CifarResNet
from infopro.objectives import from_name, list_objectives
from infopro.training import make_optimizer, make_schedule, train

WAITING = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2"}


class Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", list_objectives())
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_reads_no_value(name, optimizer):
    objective = from_name(name)
    local = infopro.localize(
        CifarResNet(blocks=(1, 1, 1), widths=(4, 8, 8), num_classes=3, in_channels=3),
        torch.rand(2, 3, 8, 8),
        num_modules=objective.num_modules or 3,
        objective=objective,
        task=infopro.tasks.Classification(num_classes=3),
    )
    steps = make_optimizer(optimizer, local.parameters(), learning_rate=0.1, weight_decay=1e-4)
    images, labels = torch.rand(6, 3, 8, 8), torch.arange(6) % 3
    with Calls() as first:
        local.backward(images, labels)  # looks at the first batch
    with Calls() as later:
        steps.zero_grad(set_to_none=True)
        local.backward(images, labels, seed=3)
        steps.step()
    assert WAITING & first.names
    # an optimizer's count of its own steps is a tensor on the CPU
    assert WAITING & later.names <= ({"_local_scalar_dense", "item"} if optimizer == "adamw" else set())


def test_the_loop_reads_no_value_between_its_first_step_and_its_last():
    """Data, augmentation, losses and counts included; what the host reads of copied losses is no call."""
    labels = torch.arange(40) % 3
    images = torch.randint(0, 256, (40, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    part = ImageTensors(images.to(torch.uint8), labels)
    data = ImageData(
        name="noise",
        train=part,
        test=part,
        num_classes=3,
        class_names=("a", "b", "c"),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        image_shape=(3, 8, 8),
        augmentation=Augmentation(crop_padding=1, flip=True),
    )
    local = infopro.localize(
        CifarResNet(blocks=(1, 1, 1), widths=(4, 8, 8), num_classes=3, in_channels=3),
        torch.rand(2, 3, 8, 8),
        num_modules=3,
        objective=from_name("infopro-contrast"),
        task=infopro.tasks.Classification(num_classes=3, mean=data.mean, std=data.std),
    )
    calls = Calls()

    def on_step(epoch, done):
        if done == 1:
            calls.__enter__()
        if done == 5:
            calls.__exit__(None, None, None)

    train(
        local,
        data,
        optimizer=make_optimizer("sgd", local.parameters(), learning_rate=0.1, weight_decay=1e-4),
        schedule=make_schedule("constant", base=0.01, epochs=1, warmup_epochs=0),
        epochs=1,
        batch_size=8,
        seed=0,
        device=torch.device("cpu"),
        on_step=on_step,
    )
    assert {"convolution_backward", "gather", "index_select"} <= calls.names and not WAITING & calls.names
