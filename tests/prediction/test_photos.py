import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from infopro.errors import BadData
from infopro.prediction.photos import find_photos, grey, output_names, read_cropped, read_photo, resized


def photo(path, rows=20, columns=30, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (rows, columns, 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def test_folders_are_searched_and_each_file_comes_once(tmp_path):
    named = photo(tmp_path / "b" / "z.png")
    inside = [photo(tmp_path / "b" / name) for name in ("a.JPG", "deep/er/x.webp")]
    photo(tmp_path / "b" / ".hidden.png")
    (tmp_path / "b" / "notes.txt").write_text("no image")
    other = photo(tmp_path / "other.ico")  # named: any format
    dotted = tmp_path / "b" / "deep" / ".." / "z.png"
    assert find_photos([named, tmp_path / "b", other, dotted]) == [named, *inside, other]


def test_pipes_in_folders_are_passed_over(tmp_path):
    """Opening one would wait for ever; a link to nowhere is a photo that cannot be read."""
    inside = photo(tmp_path / "b" / "a.png")
    os.mkfifo(tmp_path / "b" / "pipe.png")
    (tmp_path / "b" / "link.png").symlink_to("nowhere.png")
    assert find_photos([tmp_path / "b"]) == [inside, tmp_path / "b" / "link.png"]


@pytest.mark.parametrize("what", ["nothing.png", "empty"])
def test_a_path_without_photos_is_named(tmp_path, what):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("")
    with pytest.raises(BadData, match=what):
        find_photos([photo(tmp_path / "good.png"), tmp_path / what])


@pytest.mark.parametrize(
    ("photos", "names"),
    [
        (["x/1.png", "x/2.png"], ["1", "2"]),
        (["x/1.png", "y/1.png", "y/2.png"], ["x-1", "y-1", "2"]),
        (["x/1.png", "x/1.jpg"], ["1-png", "1-jpg"]),
        (["x/A.png", "y/a.png"], ["x-A", "y-a"]),
        (["p/x/1.png", "q/x/1.png"], ["p-x-1", "q-x-1"]),
        (["x/1.png", "y/1.png", "y/1.jpg"], ["x-1", "y-1-png", "y-1-jpg"]),
        (["x/1.png", "y/1.png", "x-1.png"], ["x-1", "y-1", "x-1-2"]),
        (["x/1.tar.png", "y/1.tar.png"], ["x-1.tar", "y-1.tar"]),
        (["x/1", "x/1.png"], ["1", "1-png"]),
        ([], []),
    ],
)
def test_photos_of_one_name_get_names_of_their_own(photos, names):
    assert output_names([Path("root", name) for name in photos]) == names


def test_a_photo_is_read_in_colour_at_its_own_size(tmp_path):
    colour = read_photo(photo(tmp_path / "a.png"))
    assert colour.shape == (20, 30, 3) and colour.dtype == np.uint8
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(colour, np.array(image))
    found = read_photo(photo(tmp_path / "b.png", mode="L"))
    assert found.shape == (20, 30, 3) and np.array_equal(found[..., 0], found[..., 2])


def test_the_middle_is_cut_out_as_of_test_images(tmp_path):
    found = read_cropped(photo(tmp_path / "a.png", 64, 128), 28)  # the shorter side becomes 32
    with Image.open(tmp_path / "a.png") as image:
        expected = image.resize((64, 32), Image.Resampling.BILINEAR).crop((18, 2, 46, 30))
    assert np.array_equal(found, np.array(expected))


def test_a_photo_is_resized_as_sets_of_tensors_are(tmp_path):
    pixels = read_photo(photo(tmp_path / "a.png"))
    assert np.array_equal(resized(pixels, (20, 30)), pixels)
    smaller = F.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), (8, 9), mode="bilinear", antialias=True
    )
    assert np.array_equal(resized(pixels, (8, 9)), smaller.round()[0].permute(1, 2, 0).numpy())


def test_grey_is_what_pillow_makes_of_colours(tmp_path):
    pixels = read_photo(photo(tmp_path / "a.png"))
    expected = np.array(Image.fromarray(pixels).convert("L")).astype(int)
    assert np.abs(grey(pixels)[..., 0].astype(int) - expected).max() <= 1  # Pillow rounds the weights


def test_a_broken_photo_is_named(tmp_path):
    content = photo(tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(BadData, match=r"half\.png"):
        read_photo(tmp_path / "half.png")
