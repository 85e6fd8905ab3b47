import numpy as np
import pytest
import torch
from PIL import Image

from infopro.data._decode import central_crop, random_crop
from infopro.data.augment import random_boxes

SIZE = 24


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def photo(path, width, height):
    """Smooth colours that tell where in the image they are, with some texture."""
    down, across = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    noise = np.random.default_rng(0).integers(-9, 10, (height, width))
    pixels = np.stack([230 * down + noise, 230 * across + noise, 120 + 90 * np.sin(9 * across + noise)], 2)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


def fully_decoded(path, seed):
    """What `random_crop` promises, without a shortcut; and the share of the sides that the box has."""
    with Image.open(path) as image:
        width, height = image.size
        top, left, down, across = (
            int(side) for side in random_boxes(1, height=height, width=width, generator=generator(seed))
        )
        box = (left, top, left + across, top + down)
        crop = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
    return torch.tensor(np.array(crop)).permute(2, 0, 1), min(across, down) / SIZE


def fully_decoded_middle(path, width, height):
    with Image.open(path) as image:
        resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - SIZE) // 2, (height - SIZE) // 2
    return torch.tensor(np.array(resized.crop((left, top, left + SIZE, top + SIZE)))).permute(2, 0, 1)


@pytest.mark.parametrize("name", ["small.jpg", "large.png"])
def test_small_and_lossless_images_are_decoded_whole(tmp_path, name):
    path = photo(tmp_path / name, *((53, 47) if name == "small.jpg" else (403, 301)))
    for seed in range(20):
        assert torch.equal(random_crop(path, SIZE, generator(seed)), fully_decoded(path, seed)[0])
    width = 30 if name == "small.jpg" else 36  # 27 * 53 / 47, 27 * 403 / 301
    assert torch.equal(central_crop(path, SIZE), fully_decoded_middle(path, width, 27))


def test_a_large_jpeg_is_decoded_smaller_where_that_leaves_twice_the_pixels(tmp_path):
    path = photo(tmp_path / "large.jpg", 403, 301)
    exact = set()
    for seed in range(60):
        expected, shrunk = fully_decoded(path, seed)
        difference = (random_crop(path, SIZE, generator(seed)).int() - expected.int()).abs().float()
        exact.add((shrunk >= 4, bool((difference == 0).all())))
        assert difference.mean() < 1.5
    assert exact == {(False, True), (True, False)}
    difference = (central_crop(path, SIZE).int() - fully_decoded_middle(path, 36, 27).int()).abs().float()
    assert 0 < difference.mean() < 1.5
