"""Where the grid lies in a feature tensor, and what becomes of the tokens before it."""

import pytest
import torch

from infopro.errors import NotYetSupported
from infopro.heads import SpatialLayout, ToFeatureMap, spatial_layout

IMAGE = (3, 224, 224)


@pytest.mark.parametrize(
    ("feature_shape", "image_shape", "expected"),
    [
        ((64, 56, 56), IMAGE, ("map", 64, 56, 56, 0)),
        ((56, 56, 96), IMAGE, ("channels_last", 96, 56, 56, 0)),  # Swin, first stage
        ((7, 7, 768), IMAGE, ("channels_last", 768, 7, 7, 0)),  # Swin, last stage
        ((7, 7, 7), IMAGE, ("map", 7, 7, 7, 0)),  # a tie reads as channels first
        ((512, 1, 1), IMAGE, ("map", 512, 1, 1, 0)),
        ((1, 1, 512), IMAGE, ("channels_last", 512, 1, 1, 0)),
        ((8, 8, 9), (3, 63, 65), ("map", 8, 8, 9, 0)),  # ceil(63 / 8) x ceil(65 / 8)
        ((8, 7, 8), (3, 63, 65), ("map", 8, 7, 8, 0)),  # floor
        ((5, 10, 20), (1, 5, 10), ("channels_last", 20, 5, 10, 0)),
        ((8, 15, 7), IMAGE, ("map", 8, 15, 7, 0)),  # no stride explains either: the usual order
        ((16, 44, 28), (3, 48, 32), ("map", 16, 44, 28, 0)),  # convolutions without padding
        ((16, 12, 8), (3, 48, 32), ("map", 16, 12, 8, 0)),
        ((12, 8, 16), (3, 48, 32), ("channels_last", 16, 12, 8, 0)),
        ((16, 12, 8), (784,), ("map", 16, 12, 8, 0)),  # the input is no image: nothing to compare with
        ((196, 768), IMAGE, ("tokens", 768, 14, 14, 0)),  # ViT/16 without a class token
        ((197, 768), IMAGE, ("tokens", 768, 14, 14, 1)),  # with
        ((198, 768), IMAGE, ("tokens", 768, 14, 14, 2)),  # DeiT, distilled
        ((257, 384), IMAGE, ("tokens", 384, 16, 16, 1)),  # ViT/14
        ((261, 384), IMAGE, ("tokens", 384, 16, 16, 5)),  # ViT/14 with four registers
        ((433, 64), (3, 384, 288), ("tokens", 64, 24, 18, 1)),  # not square
        ((1, 64), IMAGE, ("tokens", 64, 1, 1, 0)),
        ((2, 64), IMAGE, ("tokens", 64, 1, 1, 1)),
        ((3, 64), IMAGE, ("tokens", 64, 3, 1, 0)),  # two tokens before a grid of one are no prefix
        ((1000, 64), IMAGE, ("tokens", 64, 1000, 1, 0)),  # 31² + 39: no grid
        ((50, 64), (128,), ("tokens", 64, 50, 1, 0)),
        ((64,), IMAGE, ("vector", 64, 1, 1, 0)),
    ],
)
def test_layout_follows_from_the_shapes(feature_shape, image_shape, expected):
    assert spatial_layout(feature_shape, image_shape) == SpatialLayout(*expected)


@pytest.mark.parametrize("shape", [(), (2, 3, 4, 5)])
def test_other_ranks_are_refused_with_a_remedy(shape):
    with pytest.raises(NotYetSupported, match="cut the network after another block"):
        spatial_layout(shape, IMAGE)


def test_map_passes_untouched():
    features = torch.rand(2, 4, 3, 5)
    assert ToFeatureMap(SpatialLayout("map", 4, 3, 5))(features) is features


def test_channels_last_and_vector_are_rearranged():
    features = torch.rand(2, 3, 5, 4)
    mapped = ToFeatureMap(SpatialLayout("channels_last", 4, 3, 5))(features)
    assert torch.equal(mapped[1, 2], features[1, :, :, 2])
    vector = torch.rand(2, 4)
    assert torch.equal(ToFeatureMap(SpatialLayout("vector", 4, 1, 1))(vector)[:, :, 0, 0], vector)


def test_tokens_fill_the_grid_row_by_row():
    tokens = torch.arange(2 * 6 * 3.0).view(2, 6, 3)
    mapped = ToFeatureMap(SpatialLayout("tokens", 3, 2, 3))(tokens)
    assert mapped.shape == (2, 3, 2, 3)
    assert torch.equal(mapped[1, :, 1, 0], tokens[1, 3])


def test_mean_of_the_prefix_is_added_to_every_position():
    tokens = torch.rand(2, 6, 3, requires_grad=True)
    mapped = ToFeatureMap(SpatialLayout("tokens", 3, 2, 2, prefix=2))(tokens)
    expected = tokens[1, 3] + (tokens[1, 0] + tokens[1, 1]) / 2
    torch.testing.assert_close(mapped[1, :, 0, 1], expected, rtol=0, atol=1e-7)
    mapped.sum().backward()
    assert torch.equal(tokens.grad[:, :2], torch.full((2, 2, 3), 2.0))  # 4 positions x 1/2
    assert torch.equal(tokens.grad[:, 2:], torch.ones(2, 4, 3))
