import pytest
import torch

from infopro.errors import BadConfiguration
from infopro.models import cifar_densenet_bc


def parameter_count(num_layers: int, growth_rate: int, num_classes: int) -> int:
    channels = 2 * growth_rate
    total = 27 * channels
    for block in range(3):
        for _ in range(num_layers):
            bottleneck = 4 * growth_rate
            total += 2 * channels + channels * bottleneck + 2 * bottleneck + 9 * bottleneck * growth_rate
            channels += growth_rate
        if block < 2:
            total += 2 * channels + channels * (channels // 2)
            channels //= 2
    return total + 2 * channels + channels * num_classes + num_classes


def test_densenet_bc_100_12_has_the_published_size() -> None:
    with torch.device("meta"):
        network = cifar_densenet_bc(100, 12, 10)
    count = sum(p.numel() for p in network.parameters())
    assert count == parameter_count(16, 12, 10) == 769_162
    assert round(count / 1e6, 1) == 0.8
    assert network.classifier.in_features == 342


def test_names_are_torchvisions() -> None:
    from torchvision.models import DenseNet

    theirs = DenseNet(growth_rate=12, block_config=(3, 3, 3), num_init_features=24, num_classes=10)
    expected = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    ours = {key: tuple(value.shape) for key, value in cifar_densenet_bc(22, 12, 10).state_dict().items()}
    stem = "features.conv0.weight"
    assert ours.pop(stem) == (24, 3, 3, 3)
    del expected[stem]  # theirs is 7x7, with BatchNorm and pooling behind it
    assert list(ours.items()) == [
        item for item in expected.items() if not item[0].startswith("features.norm0")
    ]


def test_blocks_compute_what_torchvisions_compute() -> None:
    from torchvision.models import DenseNet

    torch.manual_seed(0)
    theirs = DenseNet(growth_rate=12, block_config=(3, 3, 3), num_init_features=24, num_classes=10).features
    ours = cifar_densenet_bc(22, 12, 10).features
    ours.load_state_dict(
        {key: v for key, v in theirs.state_dict().items() if not key.startswith("norm0")}
        | {"conv0.weight": ours.conv0.weight}
    )
    features = torch.randn(2, 24, 8, 8)
    expected = theirs.norm5(
        theirs.denseblock3(
            theirs.transition2(theirs.denseblock2(theirs.transition1(theirs.denseblock1(features))))
        )
    )
    assert torch.allclose(ours[1:](features), expected, atol=1e-5)


def test_a_dense_layer_returns_its_input_and_the_new_channels_as_one_tensor() -> None:
    layer = cifar_densenet_bc(10, 12, 10).features.denseblock1.denselayer1
    features = torch.randn(2, 24, 8, 8)
    out = layer(features)
    assert out.shape == (2, 36, 8, 8)
    assert torch.equal(out[:, :24], features)


@pytest.mark.parametrize(("size", "in_channels"), [(32, 3), (28, 1)])
def test_images_give_logits(size: int, in_channels: int) -> None:
    network = cifar_densenet_bc(22, 12, 5, in_channels=in_channels)
    assert network(torch.zeros(2, in_channels, size, size)).shape == (2, 5)


@pytest.mark.parametrize("depth", [4, 5, 99])
def test_other_depths_are_refused(depth: int) -> None:
    with pytest.raises(BadConfiguration, match=r"6n \+ 4"):
        cifar_densenet_bc(depth, 12, 10)
