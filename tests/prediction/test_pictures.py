import numpy as np
import pytest

from infopro.prediction import (
    colour_mask,
    default_colours,
    overlay,
    segmentation_panels,
    side_by_side,
    with_legend,
)

PAPER = 255


def photo(rows, columns, seed=0):
    return np.random.default_rng(seed).integers(0, 200, (rows, columns, 3)).astype(np.uint8)


def has_colour(picture, colour, pixels):
    return (picture == np.array(colour)).all(axis=-1).sum() >= pixels


def legend(names):
    return list(zip(names, default_colours(len(names)), strict=True))


@pytest.mark.parametrize(
    ("size", "times", "letters"),
    [((32, 32), 8, 14), ((360, 480), 1, 14), ((1024, 2048), 1, 34), ((1, 7), 37, 14)],
)
@pytest.mark.parametrize("count", [1, 11, 60])
def test_the_legend_is_readable_at_any_size_and_whole(size, times, letters, count):
    picture, entries = photo(*size), legend([f"class {index}" for index in range(count)])
    found = with_legend(picture, entries)
    rows, columns = (side * times for side in size)
    assert np.array_equal(found[:rows:times, :columns:times], picture)  # pixels are repeated, not mixed
    below = found[rows:]
    assert len(below) % (2 * letters) == 0
    for _, colour in entries:
        assert has_colour(below, colour, (letters - 2) ** 2)
    ink = (below < 100).all(axis=-1)
    # whole: paper on all sides
    assert ink.any() and not ink[:1].any() and not ink[-1:].any() and not ink[:, -2:].any()
    assert found.shape[1] == columns or found.shape[1] < columns + 500


def test_an_upright_picture_has_its_legend_beside():
    picture, entries = photo(500, 300), legend(["road", "sky"])
    found = with_legend(picture, entries)
    assert found.shape[0] == 500 and np.array_equal(found[:, :300], picture)
    assert all(has_colour(found[:, 300:], colour, 144) for _, colour in entries)


def test_a_long_name_makes_the_paper_wider():
    entries = legend(["a name of very many words " * 5, "sky\nand\tclouds"])
    found = with_legend(photo(300, 300), entries)
    assert found.shape[1] > 700
    assert (found[:, -2:] == PAPER).all() and (found[:300, 300:] == PAPER).all()


def test_without_names_there_is_only_the_picture():
    picture = photo(256, 100)
    assert np.array_equal(with_legend(picture, []), picture)


def test_panels_stand_in_a_row_under_their_captions():
    first, second = photo(200, 150), photo(100, 60, seed=1)
    found = side_by_side([("image", first), ("half as tall", second)])
    assert found.shape[0] == 200 + 2 * 14
    assert np.array_equal(found[28:, :150], first)
    assert np.array_equal(found[28::2, 157 : 157 + 120 : 2], second)  # enlarged to its height
    assert (found[:28, :150] < 100).any() and (found[:28, 157:] < 100).any()
    assert (found[28:, 150:157] == PAPER).all()


def test_a_caption_is_never_cut():
    found = side_by_side([("a caption that is much wider than its picture", photo(128, 20))])
    assert found.shape[1] > 250 and not (found[:, -2:] < 100).any()


def test_panels_are_grey_or_coloured_and_as_tall_as_asked_for():
    grey = np.full((40, 30), 70, np.uint8)
    found = side_by_side([("", grey), ("", grey[..., None]), ("", photo(9, 9))], height=20)
    assert found.shape == (48, 15 + 7 + 15 + 7 + 20, 3)
    assert (found[28:, :15] == 70).all() and (found[28:, 22:37] == 70).all()


def test_a_segmentation_is_shown_with_truth_and_what_each_module_thinks():
    image, truth = photo(130, 140), np.zeros((130, 140), np.uint8)
    truth[:, 70:] = 1
    truth[:10] = 255
    colours, coarse = [(200, 0, 0), (0, 0, 200)], np.array([[1, 0]], np.uint8)
    found = segmentation_panels(
        image,
        truth=truth,
        predictions={"prediction": 1 - truth % 2, "module 1": coarse},
        colours=colours,
        reconstructions={"module 1": image[::2, ::2]},
    )
    expected = side_by_side(
        [
            ("image", image),
            ("ground truth", colour_mask(truth, colours)),
            ("prediction", colour_mask(1 - truth % 2, colours)),
            ("module 1", colour_mask(coarse, colours)),
            ("module 1", image[::2, ::2]),
        ]
    )
    assert np.array_equal(found, expected)
    assert found[100, 147 + 10].tolist() == [200, 0, 0] and found[30, 147 + 10].tolist() == [0, 0, 0]


def test_overlays_become_pictures():
    mask = np.zeros((256, 300), np.uint8)
    picture = overlay(photo(256, 300), mask, [(10, 20, 230)])
    assert np.array_equal(with_legend(picture, [("water", (10, 20, 230))])[:256], picture)
