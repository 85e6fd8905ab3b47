"""Values against Pillow, which shares no code with torchvision's kernels for tensors."""

import colorsys
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.v2.functional import adjust_hue

from infopro.data import VOID, JointAugmentation, augment_pair, counter_generator
from infopro.data.joint_augment import _turned

FILL = (9, 99, 199)


def vary(image, mask, place=0, **options):
    generator = counter_generator("test", place)
    return augment_pair(image, mask, JointAugmentation(**options), fill=FILL, generator=generator)


def noise(rows, columns, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (channels, rows, columns), generator=generator).to(torch.uint8)


def test_without_any_option_nothing_changes():
    image = noise(5, 7)
    same, mask = vary(image, image[0])
    assert torch.equal(same, image) and torch.equal(mask, image[0])


@pytest.mark.parametrize(
    "options", [{"crop": (4, 5)}, {"crop": (12, 5)}, {"crop": (4, 12)}, {"crop": (20, 30)}]
)
def test_image_and_mask_are_cropped_padded_and_flipped_alike(options):
    image = noise(8, 9)
    for place in range(20):
        varied, mask = vary(image, image[0], place, flip=True, **options)
        assert varied.shape[1:] == mask.shape == options["crop"]
        inside = mask != VOID
        assert torch.equal(varied[0][inside], mask[inside])


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.3, 2.0])
def test_scaling_is_pillows(factor):
    # of odd sizes: no pixel is as near to two
    image, size = noise(11, 17), (round(11 * factor), round(17 * factor))
    varied, mask = vary(image, image[0], scale=(factor, factor), crop=size)
    theirs = Image.fromarray(image.permute(1, 2, 0).numpy())
    bilinear = torch.tensor(np.array(theirs.resize(size[::-1], Image.Resampling.BILINEAR))).permute(2, 0, 1)
    # fixed point of another width, and rounded once per direction
    assert (varied.int() - bilinear.int()).abs().max() <= 1
    nearest = theirs.getchannel(0).resize(size[::-1], Image.Resampling.NEAREST)
    assert np.array_equal(mask.numpy(), np.array(nearest))


def test_edges_of_image_and_mask_stay_in_one_place_at_every_scale():
    mask = torch.zeros(6, 40, dtype=torch.uint8)
    mask[:, 17:] = 1
    shifts = []
    for place in range(60):
        image, varied = vary((mask * 200)[None], mask, place, scale=(0.5, 2.0), crop=(3, 80))
        image = image[0].where(varied != VOID, 0)  # grey levels that a pixel lacks belong to the other side
        shifts.append(float((image.float() / 200).sum(1).mean() - (varied == 1).sum(1).float().mean()))
    assert max(map(abs, shifts)) <= 0.51  # the nearest pixel is half a pixel off at most
    assert abs(sum(shifts) / len(shifts)) < 0.1


def test_scales_fill_their_range():
    ramp = (torch.arange(60, dtype=torch.uint8) * 4).expand(60, 60)
    scales = []
    for place in range(100):
        image, _ = vary(ramp[None], ramp, place, scale=(0.5, 2.0), crop=(20, 20))
        scales.append(4 * 10 / float(image[0, 10, 15] - image[0, 10, 5]))
    assert 0.48 < min(scales) < 0.6 and 1.8 < max(scales) < 2.1
    assert 1.1 < sum(scales) / 100 < 1.4  # 1.25 if uniform


def test_every_place_is_as_likely():
    numbers = torch.arange(6, dtype=torch.uint8).view(2, 3)
    cut = Counter(int(vary(numbers[None], numbers, place, crop=(1, 1))[1]) for place in range(600))
    assert sorted(cut) == list(range(6)) and min(cut.values()) > 70
    tiny = torch.zeros(1, 1, dtype=torch.uint8)
    masks = [vary(tiny[None], tiny, place, crop=(2, 3))[1].flatten() for place in range(600)]
    put = Counter(mask.tolist().index(0) for mask in masks)
    assert sorted(put) == list(range(6)) and min(put.values()) > 70


def test_a_crop_larger_than_the_image_is_padded_with_the_mean_colour_and_void():
    image = torch.full((3, 2, 3), 50, dtype=torch.uint8)
    varied, mask = vary(image, image[0], crop=(4, 6))
    assert (mask == 50).sum() == 6 and (mask == VOID).sum() == 18
    assert (varied[:, mask == 50] == 50).all()
    assert varied[:, mask == VOID].unique(dim=1).tolist() == [[9], [99], [199]]


def test_padding_is_not_coloured():
    image = noise(4, 4)
    varied, mask = vary(image, torch.zeros(4, 4, dtype=torch.uint8), crop=(8, 8), colour=True)
    assert varied[:, mask == VOID].unique(dim=1).tolist() == [[9], [99], [199]]


def test_half_of_the_images_are_flipped():
    image = torch.tensor([[0, 1]], dtype=torch.uint8)
    flipped = sum(bool(vary(image[None], image, place, flip=True)[1][0, 0]) for place in range(400))
    assert 160 < flipped < 240


def test_colours_change_the_image_alone_and_no_geometry():
    image, mask = noise(16, 16), noise(16, 16)[0]
    options = {"crop": (10, 10), "scale": (0.5, 2.0), "flip": True}
    for place in range(10):
        plain, plain_mask = vary(image, mask, place, **options)
        varied, varied_mask = vary(image, mask, place, colour=True, **options)
        assert torch.equal(plain_mask, varied_mask) and not torch.equal(plain, varied)


def test_colours_follow_their_definition():
    colour = (120, 90, 60)  # its grey value is also the mean that contrast keeps
    image = torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1).expand(3, 4, 4).contiguous()
    mask = torch.zeros(4, 4, dtype=torch.uint8)
    for place in range(20):
        draws = torch.rand(8, generator=counter_generator("test", place), dtype=torch.float64)[4:].tolist()
        factors = (0.875 + 0.25 * draws[0], 0.5 + draws[1], 0.5 + draws[2])
        red, green, blue = (factors[0] * value for value in colour)
        for factor in factors[1:]:  # contrast and saturation blend with the grey value, here the same
            grey = 0.299 * red + 0.587 * green + 0.114 * blue
            red, green, blue = (grey + factor * (value - grey) for value in (red, green, blue))
        hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
        expected = colorsys.hsv_to_rgb((hue + 0.1 * draws[3] - 0.05) % 1, saturation, value)
        got = vary(image, mask, place, colour=True)[0][:, 0, 0]
        # each of the four steps rounds down to a whole number
        assert np.allclose(got, np.array(expected) * 255, atol=4)


def test_hues_are_torchvisions():
    image = noise(40, 40)
    image[:, 0] = image[0, 0]  # a row of greys
    image[:, 1] = torch.tensor([[0], [255], [0]], dtype=torch.uint8)
    image[2, 2] = image[1, 2]  # ties
    for turn in (-0.5, -0.05, 0.0, 0.03, 0.4):
        theirs = adjust_hue(image, turn).int()  # which rounds down
        assert ((_turned(image, turn).int() - theirs).abs() <= 1).all()
    assert torch.equal(_turned(image, 0.0), image)
    assert (_turned(image, 0.2)[:, 0] == image[:, 0]).all()


def test_grey_images_keep_one_channel():
    image = noise(8, 8, channels=1)
    generator = counter_generator("test")
    augmentation = JointAugmentation(crop=(12, 12), colour=True)
    varied, _ = augment_pair(image, image[0], augmentation, fill=(7,), generator=generator)
    assert varied.shape == (1, 12, 12) and varied.dtype == torch.uint8


def test_the_global_random_stream_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = vary(noise(8, 8), noise(8, 8)[0], scale=(0.5, 2.0), flip=True, colour=True)
    assert torch.equal(torch.rand(1), expected)
    again = vary(noise(8, 8), noise(8, 8)[0], scale=(0.5, 2.0), flip=True, colour=True)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))


class Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append((func.overloadpacket.__name__, args))
        return func(*args, **(kwargs or {}))


def test_nothing_asks_for_the_value_of_a_pixel_or_copies_one_to_the_device():
    with Calls() as calls:
        vary(noise(8, 8), noise(8, 8)[0], crop=(12, 12), scale=(0.5, 2.0), flip=True, colour=True)
    names = {name for name, _ in calls.seen}
    assert {"rand", "stack"} <= names  # it has watched
    waiting = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "lift_fresh"}
    assert not waiting & names
