"""Segmentation networks in gradient-isolated modules, skips across the cuts included."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3
from torchvision.models.segmentation.fcn import FCNHead

import infopro
from infopro import models
from infopro.local import LocalModel

CLASSES = 4
ENCODER = ("encoder.model.layer1", "encoder.model.layer3")
# network, the blocks that end a module, side in pixels, tensors that cross each cut besides the main one
SPLITS = [
    ("unet", ("encoder.model.layer2", "decoder.blocks.1", "decoder.blocks.3"), 32, (2, 2, 0)),
    ("unetplusplus", ENCODER, 32, (2, 4)),
    ("fpn", ENCODER, 32, (2, 4)),
    ("pspnet", ("encoder.model.layer1",), 32, (2,)),
    ("linknet", ("encoder.model.layer1", "decoder.blocks.2"), 32, (1, 1)),
    ("manet", ("encoder.model.layer4",), 32, (5,)),
    ("pan", ("encoder.model.layer2",), 128, (3,)),
    ("deeplabv3", ENCODER, 32, (2, 4)),
    ("deeplabv3plus", ("encoder.model.layer1", "decoder.aspp.1"), 32, (0, 1)),
    ("segformer", ENCODER, 32, (2, 4)),
]


def batch(side: int, number: int = 3) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(1)
    images = torch.rand(number, 3, side, side, generator=drawn)
    masks = torch.randint(CLASSES, (number, side, side), generator=drawn)
    masks[:, :2] = infopro.tasks.segmentation.VOID
    return images, masks


def localized(model: nn.Module, cuts: tuple[str, ...], side: int) -> LocalModel:
    task = infopro.tasks.Segmentation(num_classes=CLASSES)
    example = torch.rand(2, 3, side, side)
    return infopro.localize(model, example, cuts=cuts, objective=infopro.objectives.Greedy(), task=task)


def assert_sound(local: LocalModel, side: int) -> None:
    """Isolated, equal to the independent reference, and everything learns."""
    images, masks = batch(side)
    isolation = infopro.isolation_check(local, images, masks)
    assert isolation.isolated
    assert isolation.untrained == () and not any("no module" in note for note in local.split.notes)
    assert infopro.parity_check(local, images, masks).passed
    before = {name: parameter.detach().clone() for name, parameter in local.named_parameters()}
    step = local.backward(images, masks)
    assert all(torch.isfinite(loss) for losses in step.losses for loss in losses.values())
    gradients = {name: parameter.grad for name, parameter in local.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    torch.optim.SGD(local.parameters(), lr=1.0).step()
    # behind a BatchNorm that begins with 0, and over three numbers, gradients are 0 or of rounding only
    real = {name for name, gradient in gradients.items() if gradient.abs().max() > 1e-6}
    moved = {name for name, parameter in local.named_parameters() if not torch.equal(before[name], parameter)}
    assert real <= moved
    names = {id(parameter): name for name, parameter in local.named_parameters()}
    for stage in local.stages:
        assert any(names[id(parameter)] in real for parameter in stage.part.parameters())
        assert all(names[id(parameter)] in moved for parameter in stage.heads.parameters())


@pytest.mark.parametrize(("architecture", "cuts", "side", "carried"), SPLITS)
def test_smps_networks_train_in_modules(
    architecture: str, cuts: tuple[str, ...], side: int, carried: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model = models.create(f"smp/{architecture}/tu-test_resnet", num_classes=CLASSES, image_size=side)
    local = localized(model, cuts, side)
    assert local.split.cuts == cuts and local.split.carried == carried
    assert not local.split.live
    assert_sound(local, side)


class Narrow(Bottleneck):
    expansion = 1


def tiny_deeplab() -> nn.Module:
    """torchvision's parts, put together as it does: one block a stage, two in layer3, a quarter as wide."""
    torch.manual_seed(0)
    resnet = ResNet(Narrow, [1, 1, 2, 1], replace_stride_with_dilation=[False, True, True])
    backbone = IntermediateLayerGetter(resnet, {"layer4": "out", "layer3": "aux"})
    return DeepLabV3(backbone, DeepLabHead(512, CLASSES), FCNHead(256, CLASSES))


def test_deeplab_trains_in_modules_cut_inside_layer3() -> None:
    local = localized(tiny_deeplab(), ("backbone.layer3.0",), 32)
    assert local.split.carried == (0,)
    owners = [{id(p) for p in stage.part.parameters()} for stage in local.stages]
    auxiliary = {id(p) for p in local.model.aux_classifier.parameters()}
    assert not auxiliary & owners[0] and auxiliary <= owners[1]  # in the module whose features it reads
    assert_sound(local, 32)


def test_lraspp_trains_in_modules_with_its_skip_across_the_cut() -> None:
    torch.manual_seed(0)
    model = models.create("torchvision/lraspp_mobilenet_v3_large", num_classes=CLASSES)
    local = localized(model, ("backbone.6",), 32)
    assert local.split.carried == (1,)
    assert_sound(local, 32)
