import itertools

import numpy as np
import pytest
from PIL import Image

from infopro.errors import BadInput
from infopro.prediction import colour_mask, default_colours, overlay, write_mask

COLOURS = [(128, 64, 128), (0, 0, 142), (250, 170, 30)]
MASK = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)


def test_each_class_has_its_colour_and_void_is_black():
    found = colour_mask(MASK, COLOURS)
    assert found.dtype == np.uint8
    assert found.tolist() == [
        [[128, 64, 128], [0, 0, 142], [250, 170, 30]],
        [[0, 0, 0], [250, 170, 30], [128, 64, 128]],
    ]


def test_an_overlay_mixes_photo_and_colours_and_leaves_void_bare():
    photo = np.full((2, 3, 3), 100, np.uint8)
    found = overlay(photo, MASK, COLOURS, opacity=0.25)
    assert found[0, 0].tolist() == [107, 91, 107]  # 75 + 128 / 4, 75 + 64 / 4
    assert found[1, 0].tolist() == [100, 100, 100]
    assert np.array_equal(overlay(photo, MASK, COLOURS, opacity=0.0), photo)
    opaque = overlay(photo, MASK, COLOURS, opacity=1.0)
    assert np.array_equal(opaque[MASK != 255], colour_mask(MASK, COLOURS)[MASK != 255])


def test_a_grey_photo_may_be_laid_under():
    grey = np.full((2, 3, 1), 100, np.uint8)
    assert np.array_equal(overlay(grey, MASK, COLOURS), overlay(grey.repeat(3, axis=2), MASK, COLOURS))


@pytest.mark.parametrize("classes", [1, 3, 255])
def test_a_mask_file_holds_class_numbers_and_shows_colours(tmp_path, classes):
    mask = np.arange(300, dtype=np.uint64).reshape(12, 25) % classes
    mask = mask.astype(np.uint8)
    mask[0, 0] = 255
    colours = default_colours(classes)
    write_mask(tmp_path / "mask.png", mask, colours)
    with Image.open(tmp_path / "mask.png") as image:
        assert image.format == "PNG" and image.mode == "P"
        assert np.array_equal(np.array(image), mask)
        assert np.array_equal(np.array(image.convert("RGB")), colour_mask(mask, colours))


def test_a_mask_file_is_never_overwritten(tmp_path):
    file = tmp_path / "mask.png"
    file.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write_mask(file, MASK, COLOURS)
    assert file.read_bytes() == b"mine"


def test_default_colours_are_distinct_and_never_black():
    colours = np.array(default_colours(255), int)
    assert len({tuple(colour) for colour in colours.tolist()}) == 255
    assert colours.max(axis=1).min() >= 100
    near = [np.abs(one - other).max() for one, other in itertools.combinations(colours[:20], 2)]
    assert min(near) >= 40
    assert default_colours(20) == tuple(map(tuple, colours[:20].tolist()))  # more classes change none


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.array([[3]], np.uint8), "a class without a colour: got 3; allowed: 0 to 2"),
        (np.zeros((2, 2, 3), np.uint8), "a class number for every pixel"),
        (np.zeros((2, 2), np.int64), "a class number for every pixel"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, mask, message):
    for make in (colour_mask, lambda *given: write_mask(tmp_path / "mask.png", *given)):
        with pytest.raises(BadInput, match=message):
            make(mask, COLOURS)
    assert list(tmp_path.iterdir()) == []


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(BadInput, match="does not fit its image"):
        overlay(np.zeros((3, 2, 3), np.uint8), MASK, COLOURS)
