import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from infopro import models
from infopro.errors import BadConfiguration, MissingPackage, UnknownName

OWN = [
    "cifar_densenet_bc_100_12",
    "cifar_resnet110",
    "cifar_resnet20",
    "cifar_resnet32",
    "cifar_resnet44",
    "cifar_resnet56",
    "demo_resnet",
    "demo_resnet20",
]


def test_lists_our_own_networks_and_both_libraries_classifiers() -> None:
    names = models.list_models()
    assert [name for name in names if "/" not in name] == OWN
    assert len(models.list_models("torchvision/*")) >= 80
    assert len(models.list_models("timm/*")) >= 1000
    assert len(names) == len(set(names))
    assert "torchvision/fasterrcnn_resnet50_fpn" not in names


@pytest.mark.parametrize("name", OWN)
def test_every_network_of_our_own_takes_classes_and_channels(name: str) -> None:
    with torch.device("meta"):
        network = models.create(name, num_classes=7, in_channels=1, image_size=28)
        assert network(torch.zeros(2, 1, 28, 28)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("timm/test_resnet", 1, 32),
        ("timm/test_vit", 3, 32),  # built for 160: image_size rebuilds its position embedding
        ("timm/test_vit.r160_in1k", 3, 48),
        ("torchvision/squeezenet1_1", 3, 32),
        ("torchvision/vit_b_32", 3, 64),
        ("torchvision/googlenet", 3, 32),
        ("torchvision/inception_v3", 3, 75),
        ("torchvision/swin_t", 3, 32),
        ("torchvision/maxvit_t", 3, 224),
    ],
)
def test_networks_of_the_libraries(name: str, channels: int, size: int) -> None:
    with torch.device("meta"):
        network = models.create(name, num_classes=5, in_channels=channels, image_size=size)
        assert isinstance(network, nn.Module) and network.training
        logits = network(torch.zeros(2, channels, size, size))
    assert logits.shape == (2, 5)


def test_every_torchvision_classifier_says_what_images_it_takes() -> None:
    for name in models.list_models("torchvision/*"):
        needed = models.required_input(name)
        assert needed.channels == 3 and needed.image_size >= needed.smallest >= 1
    assert models.required_input("torchvision/alexnet").smallest == 63
    assert models.required_input("torchvision/vit_b_16").fixed
    assert not models.required_input("torchvision/resnet50").fixed


def test_required_input_of_timm_and_our_own() -> None:
    vit = models.required_input("timm/vit_tiny_patch16_224")
    assert (vit.channels, vit.image_size, vit.fixed) == (None, 224, True)
    assert not models.required_input("timm/resnet50.a1_in1k").fixed
    assert models.required_input("cifar_resnet32").image_size is None


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet50", ["timm/resnet50", "torchvision/resnet50"]),
        ("vgg16", ["timm/vgg16", "torchvision/vgg16"]),
        ("vit_b_16", ["torchvision/vit_b_16"]),
        ("timm/vit_b_16", ["torchvision/vit_b_16"]),
        ("torchvision/resnet5O", ["torchvision/resnet50"]),
        ("cifar_resnet23", ["cifar_resnet20"]),
        ("CIFAR_RESNET32", ["cifar_resnet32"]),
    ],
)
def test_an_unknown_name_offers_near_ones(name: str, near: list[str]) -> None:
    with pytest.raises(UnknownName) as caught:
        models.create(name, num_classes=10)
    message = str(caught.value)
    assert repr(name) in message and "did you mean" in message
    assert all(each in message for each in near)


def test_a_name_like_no_other_says_where_the_names_are() -> None:
    with pytest.raises(UnknownName, match="list_models"):
        models.create("zzzzqqqq", num_classes=10)


@pytest.mark.parametrize("name", ["torch.nn:Linear", "timm/hf-hub:timm/resnet18", "timm/", ""])
def test_code_and_hub_paths_are_not_names(name: str) -> None:
    with pytest.raises(UnknownName):
        models.create(name, num_classes=10)


def test_all_problems_come_in_one_message() -> None:
    with pytest.raises(BadConfiguration) as caught:
        models.create("torchvision/alexnet", num_classes=0, in_channels=1, image_size=32)
    message = str(caught.value)
    for part in (
        "num_classes is 0",
        "takes images of 3 channels: got in_channels 1",
        "got 32; allowed: 63 or more",
    ):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"name": "torchvision/vit_b_16", "image_size": 33}, "indivisible by patch size"),
        ({"name": "torchvision/maxvit_t", "image_size": 64}, "not divisible"),
        ({"name": "timm/test_resnet.nothing"}, "tag"),
        ({"name": "cifar_resnet20", "pretrained": True}, "no pretrained weights"),
        ({"name": "cifar_resnet20", "in_channels": 0}, "in_channels is 0"),
    ],
)
def test_what_a_network_cannot_be_is_one_line(options: dict[str, object], part: str) -> None:
    with pytest.raises(BadConfiguration, match=part) as caught:
        models.create(num_classes=10, **options)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_that_cannot_be_had_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def offline(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route to host\nwith more lines")

    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(BadConfiguration, match=r"pretrained weights of timm/test_resnet.*no route to host;"):
        models.create("timm/test_resnet", num_classes=10, pretrained=True)


def test_torchvisions_pretrained_weights_keep_all_but_another_classifier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torchvision.models import ResNet18_Weights, resnet18

    torch.manual_seed(0)
    published = resnet18().state_dict()
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", lambda self, **options: published)
    network = models.create("torchvision/resnet18", num_classes=10, pretrained=True)
    state = network.state_dict()
    assert state["fc.weight"].shape == (10, 512)
    assert all(
        torch.equal(state[key], value) for key, value in published.items() if not key.startswith("fc.")
    )


def test_without_the_libraries_our_own_networks_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert models.list_models() == OWN
    assert len(list(models.create("cifar_resnet20", num_classes=10).children())) > 0
    with pytest.raises(MissingPackage, match=r'timm.*pip install "infopro\[vision\]"'):
        models.create("timm/resnet50", num_classes=10)
    with pytest.raises(UnknownName, match=r"timm/ and torchvision/ names need"):
        models.create("resnet50", num_classes=10)


def test_a_torchvision_built_for_another_torch_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torchvision").mkdir()
    broken = 'raise RuntimeError("operator torchvision::nms does not exist")'
    (tmp_path / "torchvision" / "__init__.py").write_text(broken)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(MissingPackage) as caught:
        models.create("torchvision/resnet50", num_classes=10)
    message = str(caught.value)
    assert "operator torchvision::nms does not exist" in message and "reinstall torch" in message
    assert "cifar_resnet32" in models.list_models()


def test_models_alone_import_no_library() -> None:
    import subprocess

    code = "import sys, infopro.models; print({'timm', 'torchvision'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "set()"
