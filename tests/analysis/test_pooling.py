import pytest
import torch
import torch.nn.functional as F

from infopro.analysis.pooling import PooledMap, pooled_size


@pytest.mark.parametrize(
    ("channels", "size", "limit", "expected"),
    [
        (16, (32, 32), 1024, (8, 8)),
        (32, (16, 16), 1024, (5, 5)),
        (64, (8, 8), 1024, (4, 4)),
        (3, (32, 32), 4096, (32, 32)),
        (512, (1, 1), 64, (1, 1)),
        (1, (64, 16), 256, (32, 8)),
        (8, (100, 1), 16, (14, 1)),  # 8 x 14 numbers: an axis never falls below 1
    ],
)
def test_sizes(channels, size, limit, expected):
    assert pooled_size(channels=channels, size=size, limit=limit) == expected


@pytest.mark.parametrize("side", range(1, 40))
def test_a_square_map_is_the_largest_that_fits(side):
    found, _ = pooled_size(channels=7, size=(40, 40), limit=7 * side**2)
    assert found == side


def test_maps_are_averaged_and_small_ones_are_themselves():
    maps = torch.rand(2, 4, 8, 8)
    pool = PooledMap((4, 8, 8), (3, 16, 16), limit=64)
    assert pool.shape == (4, 4, 4)
    assert torch.equal(pool(maps), F.avg_pool2d(maps, 2))
    assert torch.equal(PooledMap((4, 8, 8), (3, 16, 16), limit=256)(maps), maps)


def test_every_layout_becomes_a_map():
    image = (3, 32, 32)
    last = torch.rand(2, 8, 8, 24)  # channels last
    assert torch.equal(PooledMap((8, 8, 24), image, limit=10**6)(last), last.permute(0, 3, 1, 2))
    vector = torch.rand(2, 10)
    assert torch.equal(PooledMap((10,), image, limit=4)(vector), vector[:, :, None, None])
    tokens = torch.rand(2, 65, 6)  # a class token and a grid of 8 x 8
    pooled = PooledMap((65, 6), image, limit=6)(tokens)
    assert torch.allclose(pooled[:, :, 0, 0], tokens[:, 1:].mean(1) + tokens[:, 0], atol=1e-6)


def test_an_image_is_read_as_an_image_whatever_its_sides():
    pool = PooledMap((3, 4, 3), (3, 4, 3), limit=10**6)
    assert pool.shape == (3, 4, 3)
