"""Segmentation networks trained locally: isolated, every weight trained, K = 1 as ever, auxiliary heads."""

import copy

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.segmentation.deeplabv3 import _deeplabv3_resnet
from torchvision.models.segmentation.fcn import FCN, FCNHead

import infopro
from infopro.objectives import from_name, list_objectives
from infopro.tasks import VOID, HardPixels, Segmentation

CLASSES = 5
LOCAL = [name for name in list_objectives() if from_name(name).num_modules is None]
WAITING = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2"}


def fcn():
    """torchvision's FCN with auxiliary head, a block per layer."""
    layers = {"layer4": "out", "layer3": "aux"}
    backbone = IntermediateLayerGetter(ResNet(BasicBlock, [1, 1, 1, 1]), return_layers=layers)
    return FCN(backbone, FCNHead(512, CLASSES), FCNHead(256, CLASSES))


def deeplab():
    """torchvision's deeplabv3_resnet50 with a block per layer in place of 3, 4, 6, 3."""
    resnet = ResNet(Bottleneck, [1, 1, 1, 1], replace_stride_with_dilation=[False, True, True])
    return _deeplabv3_resnet(resnet, CLASSES, True)


def unet():
    """Skips cross every cut; the sides are divided exactly, as smp demands."""
    return smp.Unet("mobilenet_v2", encoder_weights=None, decoder_channels=(16, 12, 8, 8, 4), classes=CLASSES)


NETWORKS = {
    "fcn": (fcn, ["backbone.layer1.0", "backbone.layer2.0"], (40, 56)),
    "unet": (unet, ["encoder.features.3", "encoder.features.13"], (32, 64)),
}


def made(build):
    torch.manual_seed(0)
    return build()


def batch(size, num_images=2):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(num_images, 3, *size, generator=generator)
    masks = torch.randint(CLASSES, (num_images, *size), generator=generator)
    masks[:, : size[0] // 4] = VOID
    return images, masks


def localize(build, cuts, size, name, **options):
    model, (images, _) = made(build), batch(size)
    task = Segmentation(num_classes=CLASSES, **options)
    return infopro.localize(model, images, cuts=cuts, objective=from_name(name), task=task)


@pytest.fixture(scope="module", params=[(network, name) for network in NETWORKS for name in LOCAL])
def local_and_batch(request):
    network, name = request.param
    build, cuts, size = NETWORKS[network]
    return localize(build, cuts, size, name), *batch(size)


def test_gradients_are_isolated_and_reach_everything(local_and_batch):
    local, images, masks = local_and_batch
    report = infopro.isolation_check(local, images, masks)
    assert report.isolated and report.untrained == ()
    assert infopro.parity_check(local, images, masks).passed


def test_a_step_changes_every_weight_and_waits_for_nothing(local_and_batch):
    local, images, masks = local_and_batch
    before = {name: value.clone() for name, value in local.named_parameters()}
    optimizer = torch.optim.SGD(local.parameters(), lr=0.1)
    local.check_once(images, masks)
    with Calls() as seen:
        out = local.backward(images, masks, seed=3)
        counts = local.task.counts(out.logits, masks)
        optimizer.step()
    assert not WAITING & seen.names
    assert all(losses["total"].isfinite() for losses in out.losses)
    assert out.logits.shape == (2, CLASSES, *images.shape[2:])
    assert counts.sum() == (masks != VOID).sum()
    unchanged = [name for name, value in local.named_parameters() if torch.equal(value, before[name])]
    assert unchanged == []


class Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def criterion(inputs, target, weight):
    """torchvision's references/segmentation/train.py; there the weight is 0.5."""
    losses = {key: F.cross_entropy(x, target, ignore_index=VOID) for key, x in inputs.items()}
    return losses["out"] + weight * losses["aux"]


def trained(model, step, parameters):
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    for seed in range(2):
        optimizer.zero_grad()
        step(seed)
        optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize(
    ("name", "weight"), [*((name, 0.4) for name in list_objectives()), ("infopro-softmax", 0.5)]
)
def test_one_module_is_ordinary_training(name, weight):
    images, masks = batch((40, 56))
    model = made(fcn)
    objective, task = from_name(name), Segmentation(num_classes=CLASSES, auxiliary_weight=weight)
    plain = copy.deepcopy(model)
    local = infopro.localize(model, images, cuts=[], objective=objective, task=task)

    def ordinary(seed):
        torch.manual_seed(seed)
        criterion(plain(images), masks, weight).backward()

    found = trained(model, lambda seed: local.backward(images, masks, seed=seed), local.parameters())
    expected = trained(plain, ordinary, plain.parameters())
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, msg=key)


def test_without_its_weight_an_auxiliary_head_learns_nothing():
    images, masks = batch((40, 56))
    for weight, silent in ((0.0, True), (0.4, False)):
        local = localize(fcn, ["backbone.layer2.0"], (40, 56), "greedy", auxiliary_weight=weight)
        local.backward(images, masks)
        gradients = [p.grad for p in local.model.aux_classifier.parameters()]
        assert all(bool((g == 0).all()) == silent for g in gradients)


def gradients_of_the_last_loss(local, images, masks):
    """By parameter, what the last module's loss (prediction and auxiliary head) gives it; None: nothing."""
    found = []
    batch = infopro.types.Batch(images, masks)
    local.walk((images,), batch, lambda _, losses: found.append(losses["total"]))
    names, parameters = zip(*local.model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(found[-1], parameters, allow_unused=True)
    return dict(zip(names, gradients, strict=True))


@pytest.mark.parametrize(
    ("build", "cut", "reads_own_features"),
    [(deeplab, "backbone.layer2.0", True), (fcn, "backbone.layer3.0", False)],
)
def test_the_auxiliary_head_stays_in_the_last_module(build, cut, reads_own_features):
    """It trains the layer that it reads where that is in its own module, and itself alone where it is not."""
    images, masks = batch((32, 40))
    local = localize(build, [cut], (32, 40), "greedy")
    owned = {id(p) for p in local.stages[-1].part.parameters()}
    assert all(id(p) in owned for p in local.model.aux_classifier.parameters())
    reached = gradients_of_the_last_loss(local, images, masks)
    for name, parameter in local.model.named_parameters():
        assert (reached[name] is not None) == (id(parameter) in owned), name
    assert (reached["backbone.layer3.0.conv1.weight"] is not None) == reads_own_features
    assert infopro.isolation_check(local, images, masks).isolated


def test_hard_pixels_and_class_weights_serve_local_heads_too():
    images, masks = batch((40, 56))
    options = {"class_weights": (1.0, 2.0, 0.5, 1.0, 3.0), "hard_pixels": HardPixels(0.2, 100)}
    build, cuts, size = NETWORKS["fcn"]
    plain = localize(build, cuts, size, "dgl").backward(images, masks, seed=1)
    other = localize(build, cuts, size, "dgl", **options).backward(images, masks, seed=1)
    assert all(a["total"] != b["total"] for a, b in zip(plain.losses, other.losses, strict=True))


def test_a_batch_of_void_changes_nothing_but_is_no_error():
    images, masks = batch((40, 56))
    build, cuts, size = NETWORKS["fcn"]
    local = localize(build, cuts, size, "infopro-contrast")
    out = local.backward(images, torch.full_like(masks, VOID))
    assert [losses["task"].item() for losses in out.losses] == [0.0] * 3
    assert all(p.grad.isfinite().all() for p in local.parameters())
    assert all((p.grad == 0).all() for p in local.stages[-1].part.parameters())


def test_local_losses_fall():
    images, masks = batch((40, 56), num_images=4)
    masks = (images[:, 0] > 0.5).long()
    build, cuts, size = NETWORKS["fcn"]
    for name in ("dgl", "infopro-contrast"):
        local = localize(build, cuts, size, name)
        optimizer, losses = torch.optim.SGD(local.parameters(), lr=0.05, momentum=0.9), []
        for step in range(5):
            optimizer.zero_grad()
            out = local.backward(images, masks, seed=step)
            optimizer.step()
            losses.append([float(stage["total"]) for stage in out.losses])
        assert all(last < first for first, last in zip(losses[0], losses[-1], strict=True)), name


@pytest.mark.parametrize("name", LOCAL)
def test_what_runs_again_draws_the_same_positions(name):
    images, masks = batch((40, 56))
    gradients = []
    for checkpoint in ("none", "everything"):
        local = infopro.localize(
            made(fcn),
            images,
            cuts=["backbone.layer2.0"],
            objective=from_name(name),
            task=Segmentation(num_classes=CLASSES),
            checkpoint=checkpoint,
        )
        local.backward(images, masks, seed=5)
        gradients.append({key: value.grad for key, value in local.named_parameters()})
    for key, value in gradients[0].items():
        assert torch.equal(gradients[1][key], value), key


@pytest.mark.parametrize("name", ["greedy", "infopro-contrast"])
def test_cuts_can_be_chosen_by_memory(name):
    images, masks = batch((40, 56))
    local = infopro.localize(
        made(fcn),
        images,
        num_modules=3,
        objective=from_name(name),
        task=Segmentation(num_classes=CLASSES),
    )
    assert local.split.num_modules == 3
    assert all(losses["total"].isfinite() for losses in local.backward(images, masks).losses)
