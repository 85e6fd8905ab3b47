import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from infopro.data import Augmentation, augment, normalize
from infopro.data.augment import random_boxes
from infopro.errors import BadInput


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(num_images, height=6, width=7, seed=0):
    return torch.randint(0, 256, (num_images, 3, height, width), generator=generator(seed), dtype=torch.uint8)


def padded(images, padding, mode):
    if mode == "zero":
        return F.pad(images, (padding,) * 4)
    return F.pad(images.float(), (padding,) * 4, mode="reflect").to(torch.uint8)


def possible_views(image, padding, mode, flip):
    """Every crop of the padded image, and its mirror image where flips are on."""
    wide = padded(image[None], padding, mode)[0]
    _, height, width = image.shape
    steps = range(2 * padding + 1)
    crops = [wide[:, top : top + height, left : left + width] for top in steps for left in steps]
    return crops + [crop.flip(2) for crop in crops if flip]


@settings(deadline=None, max_examples=40)
@given(
    padding=st.integers(0, 4),
    mode=st.sampled_from(["reflect", "zero"]),
    flip=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_every_augmented_image_is_a_crop_of_the_padded_one(padding, mode, flip, seed):
    images = random_images(4, seed=seed)
    out = augment(images, Augmentation(padding, mode, flip), generator(seed))
    for image, view in zip(images, out, strict=True):
        assert any(torch.equal(view, possible) for possible in possible_views(image, padding, mode, flip))


def test_all_crops_and_both_sides_are_drawn():
    image = random_images(1)
    out = augment(image.expand(400, -1, -1, -1), Augmentation(1, "zero", True), generator())
    drawn = {view.numpy().tobytes() for view in out}
    assert drawn == {
        view.contiguous().numpy().tobytes() for view in possible_views(image[0], 1, "zero", True)
    }
    assert len(drawn) == 18


def test_nothing_switched_on_is_the_identity():
    images = random_images(5)
    assert torch.equal(augment(images, Augmentation(), generator()), images)
    assert not torch.equal(augment(images, Augmentation(crop_padding=2), generator()), images)


def test_the_drawn_half_is_flipped_with_or_without_a_crop():
    images, draws = random_images(40), generator(7)
    torch.randint(0, 1, (2, 40, 1), generator=draws)  # where a crop without padding lies
    flips = torch.rand(40, generator=draws) < 0.5
    expected = torch.where(flips.view(-1, 1, 1, 1), images.flip(3), images)
    assert torch.equal(augment(images, Augmentation(flip=True), generator(7)), expected)
    assert 0 < flips.sum() < 40


def test_only_the_generator_decides():
    images, augmentation = random_images(20), Augmentation(2, "reflect", True, True)
    first = augment(images, augmentation, generator(1))
    torch.manual_seed(99)
    assert torch.equal(augment(images, augmentation, generator(1)), first)
    assert not torch.equal(augment(images, augmentation, generator(2)), first)


def test_images_of_a_batch_are_varied_independently():
    same = random_images(1).expand(30, -1, -1, -1)
    out = augment(same, Augmentation(crop_padding=2), generator())
    assert len({view.numpy().tobytes() for view in out}) > 10


@settings(deadline=None, max_examples=40)
@given(height=st.integers(1, 60), width=st.integers(1, 60), seed=st.integers(0, 2**31))
def test_random_boxes_lie_inside_the_image(height, width, seed):
    tops, lefts, heights, widths = random_boxes(50, height=height, width=width, generator=generator(seed))
    assert (tops >= 0).all() and (lefts >= 0).all() and (heights >= 1).all() and (widths >= 1).all()
    assert (tops + heights <= height).all() and (lefts + widths <= width).all()


def test_random_boxes_have_the_areas_and_aspects_they_promise():
    _, _, heights, widths = random_boxes(2000, height=1000, width=1000, generator=generator())
    area, aspect = heights * widths / 1e6, widths / heights
    assert area.min() > 0.079 and area.max() <= 1 and area.max() > 0.9
    assert aspect.min() > 0.745 and aspect.max() < 1.345
    assert 0.4 < area.mean() < 0.6  # uniform on 0.08 to 1, the largest boxes refused now and then


def test_a_long_image_that_no_box_fits_gives_its_middle_square():
    tops, lefts, heights, widths = random_boxes(4, height=1, width=101, generator=generator())
    assert set(heights.tolist()) == set(widths.tolist()) == {1}
    assert tops.tolist() == [0] * 4 and lefts.tolist() == [50] * 4


def test_a_resized_crop_of_a_ramp_is_a_slower_ramp():
    ramp = torch.arange(0, 256, 4, dtype=torch.uint8).expand(8, 1, 64, 64)
    out = augment(ramp, Augmentation(random_resized_crop=True), generator()).int()
    _, lefts, _, widths = random_boxes(8, height=64, width=64, generator=generator())
    steps = out[:, 0, 0].diff(dim=1)
    assert (steps >= 0).all() and (out.diff(dim=2) == 0).all()
    assert torch.allclose(out[:, 0, 0, 32].float(), 4 * (lefts + widths * 32.5 / 64 - 0.5), atol=0.51)


def test_a_resized_crop_never_leaves_its_box():
    image = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    out_generator, box_generator = generator(5), generator(5)
    top, left, height, width = (
        int(side) for side in random_boxes(1, height=16, width=16, generator=box_generator)
    )
    image[:, :, top : top + height, left : left + width] = 200
    assert (augment(image, Augmentation(random_resized_crop=True), out_generator) == 200).all()
    assert height * width < 256


def test_normalize_gives_the_definition():
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    out = normalize(images, (0.5, 0.5, 0.2), (0.5, 0.25, 0.1))
    assert out.dtype == torch.float32
    assert torch.allclose(out.flatten(), torch.tensor([-1.0, 2.0, 0.0]), atol=1e-6)
    assert images.flatten().tolist() == [0, 255, 51]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_memory_format_stays_and_changes_no_value(channels):
    images = random_images(9)[:, :channels].contiguous()
    last = images.contiguous(memory_format=torch.channels_last)
    numbers = (0.49, 0.48, 0.45)[:channels], (0.25, 0.24, 0.26)[:channels]
    for augmentation in (Augmentation(flip=True), Augmentation(2, "zero", flip=True)):
        expected, found = (augment(each, augmentation, generator()) for each in (images, last))
        assert torch.equal(found, expected)
    assert torch.equal(normalize(last, *numbers), normalize(images, *numbers))
    assert normalize(images, *numbers).is_contiguous()
    assert normalize(last, *numbers).is_contiguous(memory_format=torch.channels_last)


def test_normalize_takes_any_strides():
    images = random_images(4)
    every_second = images.repeat_interleave(2, dim=3)[..., ::2]
    assert not every_second.is_contiguous() and torch.equal(every_second, images)
    assert torch.equal(
        normalize(every_second, (0.4,) * 3, (0.2,) * 3), normalize(images, (0.4,) * 3, (0.2,) * 3)
    )


def test_wrong_input_is_refused():
    with pytest.raises(BadInput, match="float32"):
        augment(random_images(1).float(), Augmentation(), generator())
    with pytest.raises(BadInput, match=r"6; allowed: below 6"):
        augment(random_images(1), Augmentation(crop_padding=6), generator())
    assert augment(random_images(1), Augmentation(6, "zero"), generator()).shape == (1, 3, 6, 7)
