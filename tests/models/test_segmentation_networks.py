import sys
from collections.abc import Iterator
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torchvision import models as torchvision_models

from infopro import models
from infopro.errors import BadConfiguration, MissingPackage, UnknownName

TORCHVISION = [
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet101",
    "deeplabv3_resnet50",
    "fcn_resnet101",
    "fcn_resnet50",
    "lraspp_mobilenet_v3_large",
]
SMALL = {"dpt": "tu-test_vit"}  # DPT takes vision transformers
ARCHITECTURES = [
    *("unet", "unetplusplus", "fpn", "pspnet", "linknet", "manet", "pan", "deeplabv3", "deeplabv3plus"),
    *("upernet", "segformer", "dpt"),
]


def test_lists_the_segmentation_networks_of_both_libraries() -> None:
    dense = [name for name in models.list_models("torchvision/*") if models.required_input(name).dense]
    assert dense == [f"torchvision/{name}" for name in TORCHVISION]
    names = models.list_models("smp/*")
    assert {name.split("/")[1] for name in names} == set(ARCHITECTURES)
    assert {"smp/unet/resnet18", "smp/fpn/efficientnet-b0", "smp/segformer/mit_b0"} < set(names)
    assert "smp/dpt/tu-vit_tiny_patch16_224" in names and "smp/dpt/resnet18" not in names
    assert len(names) == len(set(names))


def test_every_encoder_is_listed_with_every_architecture_that_takes_it() -> None:
    names = set(models.list_models("smp/*"))
    for architecture in set(ARCHITECTURES) - {"dpt"}:
        own = [
            encoder
            for encoder in smp.encoders.get_encoder_names()
            if f"smp/{architecture}/{encoder}" in names
        ]
        assert len(own) >= 58
    for refused in ("unetplusplus/mit_b0", "linknet/mit_b3", "pan/vgg11", "deeplabv3/densenet121"):
        assert f"smp/{refused}" not in names
        with pytest.raises(BadConfiguration, match=f"smp/{refused} cannot be built"):
            models.create(f"smp/{refused}", num_classes=2)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_networks_predict_per_pixel_with_their_auxiliary_head(name: str) -> None:
    with torch.device("meta"):
        network = models.create(f"torchvision/{name}", num_classes=7, image_size=(32, 64))
        output = network(torch.zeros(2, 3, 32, 64))
    heads = ["out"] if name.startswith("lraspp") else ["out", "aux"]
    assert {key: tuple(value.shape) for key, value in output.items()} == {
        key: (2, 7, 32, 64) for key in heads
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_smps_architectures_predict_per_pixel(architecture: str) -> None:
    name = f"smp/{architecture}/{SMALL.get(architecture, 'tu-test_resnet')}"
    size = (128, 160) if architecture == "pan" else (32, 64)
    network = models.create(name, num_classes=5, in_channels=1, image_size=size)
    assert type(network) is smp.MODEL_ARCHITECTURES_MAPPING[architecture]
    with torch.no_grad():
        assert network(torch.rand(2, 1, *size)).shape == (2, 5, *size)


def test_the_networks_are_the_libraries_own() -> None:
    torch.manual_seed(0)
    ours = models.create("smp/unet/resnet18", num_classes=3, in_channels=2).state_dict()
    torch.manual_seed(0)
    theirs = smp.Unet("resnet18", encoder_weights=None, in_channels=2, classes=3).state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[key], theirs[key]) for key in theirs)
    torch.manual_seed(0)
    ours = models.create("torchvision/lraspp_mobilenet_v3_large", num_classes=3).state_dict()
    torch.manual_seed(0)
    theirs = torchvision_models.segmentation.lraspp_mobilenet_v3_large(
        weights_backbone=None, num_classes=3
    ).state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize(
    ("name", "multiple", "smallest"),
    [
        ("smp/unet/resnet18", 1, 1),
        ("smp/unet/mit_b0", 1, 32),
        ("smp/fpn/resnet18", 32, 32),
        ("smp/pspnet/resnet18", 8, 8),
        ("smp/deeplabv3/resnet18", 8, 8),
        ("smp/deeplabv3plus/resnet18", 16, 16),
        ("smp/pan/resnet18", 16, 128),
        ("torchvision/fcn_resnet50", 1, 1),
    ],
)
def test_what_sides_an_image_must_have(name: str, multiple: int, smallest: int) -> None:
    needed = models.required_input(name)
    assert (needed.multiple_of, needed.smallest, needed.dense) == (multiple, smallest, True)
    side = max(multiple, smallest)
    if not name.startswith("torchvision/"):  # what is asked for is what the network takes
        network = models.create(name, num_classes=2, image_size=side)
        assert network(torch.zeros(2, 3, side, side)).shape[2:] == (side, side)
    if multiple > 1:
        with pytest.raises(RuntimeError, match="divisible"):
            network(torch.zeros(2, 3, side + 1, side))


def test_a_network_of_one_size_says_so_and_is_built_for_another() -> None:
    needed = models.required_input("smp/dpt/tu-vit_tiny_patch16_224")
    assert (needed.image_size, needed.fixed, needed.dense) == (224, True, True)
    assert not models.required_input("smp/unet/tu-test_resnet").fixed


@pytest.mark.parametrize(
    ("name", "size", "part"),
    [
        ("smp/fpn/resnet18", (50, 64), "multiples of 32: got 50x64; change image_size or crop to 64,"),
        ("smp/deeplabv3plus/resnet18", 100, "multiples of 16: got 100; change image_size or crop to 112"),
        ("smp/pan/resnet18", (96, 256), "too small for smp/pan/resnet18: got 96x256; allowed: 128 or more"),
        ("torchvision/vit_b_16", (32, 64), "takes square images: got 32x64"),
    ],
)
def test_sides_that_a_network_cannot_have_are_one_line(name: str, size: Any, part: str) -> None:
    with pytest.raises(BadConfiguration) as caught:
        models.create(name, num_classes=2, image_size=size)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_rows_and_columns_reach_a_network_of_one_size() -> None:
    network = models.create("timm/test_vit", num_classes=2, image_size=(32, 64))
    assert network(torch.zeros(1, 3, 32, 64)).shape == (1, 2)


def test_channels_that_torchvision_cannot_take_point_to_smp() -> None:
    with pytest.raises(
        BadConfiguration, match=r"images of 3 channels: got in_channels 1; .* or take an smp/"
    ):
        models.create("torchvision/fcn_resnet50", num_classes=2, in_channels=1)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("unet", "smp/unet/resnet18"),
        ("unet/resnet18", "smp/unet/resnet18"),
        ("smp/unet/resnet19", "smp/unet/resnet18"),
        ("deeplabv3_resnet50", "torchvision/deeplabv3_resnet50"),
        ("smp/Unet/resnet18", "smp/unet/resnet18"),
    ],
)
def test_an_unknown_name_offers_near_ones(name: str, near: str) -> None:
    with pytest.raises(UnknownName, match=f"did you mean .*{near}"):
        models.create(name, num_classes=2)


@pytest.mark.parametrize("name", ["smp/unet", "smp/unet/", "smp/unet/tu-", "smp/unet/tu-nothing", "smp/"])
def test_an_encoder_that_is_not_there_is_no_name(name: str) -> None:
    with pytest.raises(UnknownName):
        models.required_input(name)


def offline(*args: object, **kwargs: object) -> None:
    raise ConnectionError("no route to host\nwith more lines")


def test_pretrained_weights_that_cannot_be_had_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smp.encoders, "hf_hub_download", offline)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr(torchvision_models._api, "load_state_dict_from_url", offline)
    for name in ("smp/unet/resnet18", "torchvision/lraspp_mobilenet_v3_large"):
        with pytest.raises(BadConfiguration, match=rf"weights of {name} could not.*no route to host;"):
            models.create(name, num_classes=2, pretrained=True)


def test_pretrained_is_torchvisions_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    published = torchvision_models.mobilenet_v3_large().state_dict()
    weights = torchvision_models.MobileNet_V3_Large_Weights
    monkeypatch.setattr(weights, "get_state_dict", lambda self, **options: published)
    network = models.create("torchvision/deeplabv3_mobilenet_v3_large", num_classes=2, pretrained=True)
    backbone = network.backbone.state_dict()
    assert all(torch.equal(value, published[f"features.{key}"]) for key, value in backbone.items())
    assert "aux_classifier" in dict(network.named_children())


@pytest.mark.parametrize(("encoder", "weights"), [("mobilenet_v2", "imagenet"), ("dpn68b", "imagenet+5k")])
def test_pretrained_is_smps_encoder(encoder: str, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    published = smp.encoders.get_encoder(encoder, weights=None).state_dict()
    asked: list[str] = []
    monkeypatch.setattr(smp.encoders, "hf_hub_download", lambda repository, **rest: asked.append(repository))
    monkeypatch.setattr(smp.encoders, "load_file", lambda path, device: published)
    network = models.create(f"smp/linknet/{encoder}", num_classes=2, pretrained=True)
    assert {name.rpartition(".")[2] for name in asked} == {weights.replace("+", "-")}
    found = network.encoder.state_dict()
    assert all(torch.equal(found[key], value) for key, value in published.items())


@pytest.mark.parametrize(
    ("name", "dense", "parts"),
    [
        ("torchvision/fcn_resnet50", False, ["a class per pixel: got cifar10, which has one per image"]),
        ("smp/unet/resnet18", False, ["smp/unet/resnet18 predicts a class per pixel"]),
        ("cifar_resnet32", True, ["a class per image: got cifar10, which has one per pixel", "deeplabv3"]),
        ("timm/resnet50", True, ["timm/resnet50 predicts a class per image"]),
    ],
)
def test_a_network_of_another_kind_than_the_data_is_refused(name: str, dense: bool, parts: list[str]) -> None:
    models.check_targets(name, dense=not dense, data="cifar10")
    with pytest.raises(BadConfiguration) as caught:
        models.check_targets(name, dense=dense, data="cifar10")
    assert all(part in str(caught.value) for part in parts) and "\n" not in str(caught.value)


def test_without_smp_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    assert models.list_models("smp/*") == []
    assert "torchvision/fcn_resnet50" in models.list_models()
    with pytest.raises(MissingPackage, match=r'smp/ARCHITECTURE/ENCODER needs .*"infopro\[seg\]"'):
        models.create("smp/unet/resnet18", num_classes=2)
    with pytest.raises(UnknownName, match=r'smp/ names need: pip install "infopro\[seg\]"'):
        models.create("unet/resnet18", num_classes=2)


@pytest.fixture
def deeplab() -> Iterator[nn.Module]:
    torch.manual_seed(0)
    yield models.create("torchvision/deeplabv3_mobilenet_v3_large", num_classes=3).train()


def test_a_batch_of_one_cannot_train_deeplab(deeplab: nn.Module) -> None:
    """Its branch over the whole image normalises a map of 1 x 1."""
    image: Tensor = torch.rand(1, 3, 64, 64)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        deeplab(image)
    assert deeplab.eval()(image)["out"].shape == (1, 3, 64, 64)
