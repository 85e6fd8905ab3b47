"""Image files as people have them: every kind that is read, and those that are refused or left out."""

import os
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from infopro.data import ImageFiles, ImageTensors, load
from infopro.data._bad_images import BadImages
from infopro.data._decode import MAX_PIXELS, central_crop, random_crop, whole_image
from infopro.data._readable_images import readable_images
from infopro.data._sources import walked
from infopro.data.image_folder import class_folders
from infopro.errors import BadConfiguration, BadData, BadImage
from infopro.recipes._fingerprint import data_hash

SKIP = BadImages(skip=True)
LEVELS = np.linspace(0, 255, 24).round().astype(np.uint8)[None].repeat(16, 0)  # a grey ramp


def grey(path, **options):
    Image.fromarray(LEVELS).save(path, **options)


def sixteen_bits(path):
    Image.fromarray(LEVELS.astype(np.uint16) * 257).save(path)


def in_mode(mode, **options):
    def write(path):
        Image.fromarray(LEVELS).convert("RGB").convert(mode).save(path, **options)

    return write


def transparent(path):
    """Grey beneath, whatever shines through."""
    image = Image.fromarray(LEVELS).convert("RGBA")
    image.putalpha(Image.fromarray(LEVELS.T[:16, :1].repeat(24, 1)))
    image.save(path)


def palette(path):
    Image.fromarray(LEVELS).convert("P").save(path)


def clear_palette(path):
    image = Image.fromarray(LEVELS).convert("P")
    image.save(path, transparency=bytes([0, 128] + [255] * 254))


def moving(path, **options):
    frames = [Image.fromarray(np.full_like(LEVELS, 9)).convert("RGB") for _ in range(2)]
    Image.fromarray(LEVELS).convert("RGB").save(path, save_all=True, append_images=frames, **options)


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(LEVELS).convert("RGB").save(path, quality=100, exif=exif)


def portable(path):
    path.write_bytes(b"P5 24 16 255\n" + LEVELS.tobytes())


KINDS = {
    "grey.png": grey,
    "grey.jpg": lambda path: grey(path, quality=100),
    "sixteen.png": sixteen_bits,
    "sixteen.tif": sixteen_bits,
    "cmyk.jpg": in_mode("CMYK", quality=100),
    "cmyk.tif": in_mode("CMYK"),
    "palette.png": palette,
    "palette.gif": palette,
    "clear.png": clear_palette,
    "grey with alpha.png": in_mode("LA"),
    "alpha.png": transparent,
    "alpha.webp": lambda path: in_mode("RGBA", lossless=True)(path),
    "moving.gif": moving,
    "moving.webp": lambda path: moving(path, lossless=True),
    "turned.jpg": turned,
    "plain.bmp": in_mode("RGB"),
    "portable.pgm": portable,
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_becomes_the_same_ramp_in_rgb(tmp_path, name):
    KINDS[name](tmp_path / name)
    image = whole_image(tmp_path / name)
    assert image.dtype == torch.uint8
    expected = torch.from_numpy(LEVELS).expand(3, 16, 24).int()
    assert (image.int() - expected).abs().max() <= 2
    assert central_crop(tmp_path / name, 8).shape == (3, 8, 8)


def test_content_decides_and_not_the_ending(tmp_path):
    grey(tmp_path / "0.png")
    os.rename(tmp_path / "0.png", tmp_path / "0.jpg")
    assert torch.equal(whole_image(tmp_path / "0.jpg")[0], torch.from_numpy(LEVELS))


def test_no_image_starts_a_program(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("a program was started"))
    (tmp_path / "0.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(BadImage, match="not an image"):
        whole_image(tmp_path / "0.jpg")


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(path, width, height):
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")))


@pytest.mark.parametrize("sides", [(20_000, 20_000), (1, MAX_PIXELS + 1), (2**31 - 1, 2**31 - 1)])
def test_images_of_too_many_pixels_are_refused_by_their_heads(tmp_path, sides):
    bomb(tmp_path / "0.png", *sides)
    with pytest.raises(BadImage, match=r"more than 178956970 pixels\): got .*0\.png"):
        central_crop(tmp_path / "0.png", 8)


@pytest.mark.parametrize("size", [(1, 1), (1, 60_000), (60_000, 1), (3, 200)])
def test_tiny_and_very_long_images_give_what_is_asked_for(tmp_path, size):
    Image.new("RGB", size, (10, 20, 30)).save(tmp_path / "0.png")
    for image in (
        central_crop(tmp_path / "0.png", 224),
        random_crop(tmp_path / "0.png", 224, torch.Generator().manual_seed(0)),
    ):
        assert image.shape == (3, 224, 224) and (image == torch.tensor([10, 20, 30])[:, None, None]).all()


def test_the_middle_of_a_very_long_image_is_the_middle(tmp_path):
    pixels = np.zeros((4, 400, 3), dtype=np.uint8)
    pixels[:, 200:] = 255
    Image.fromarray(pixels).save(tmp_path / "0.png")
    row = central_crop(tmp_path / "0.png", 56)[0, 20].tolist()
    assert row[:16] == [0] * 16 and row[-16:] == [255] * 16 and row == sorted(row)


def test_fractions_are_refused(tmp_path):
    Image.fromarray(LEVELS.astype(np.float32)).save(tmp_path / "0.tif")
    with pytest.raises(BadImage, match="fractions"):
        whole_image(tmp_path / "0.tif")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "0.png")
    with pytest.raises(BadImage, match="not a file"):
        whole_image(tmp_path / "0.png")


def folder(root, number=12):
    """Two classes; the images of the second are brighter, and all differ."""
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for place in range(number):
            ramp = np.random.default_rng([label, place]).integers(0, 120, (30, 40, 3)) + 120 * label
            Image.fromarray(ramp.astype(np.uint8)).save(root / name / f"{place:02}.png")
    return root


def spoil(root):
    """Four of them; as a run has them: file and reason."""
    whole = (root / "dog/03.png").read_bytes()
    (root / "dog/03.png").write_bytes(whole[: len(whole) // 2])
    (root / "dog/04.png").write_bytes(b"")
    (root / "cat/05.png").write_text("hello")
    (root / "cat/zzz.png").symlink_to("nowhere")
    return {"dog/03.png", "dog/04.png", "cat/05.png", "cat/zzz.png"}


def names(data):
    return [path.name for part in (data.train, data.test) for path in part.paths]


def test_all_bad_images_are_told_at_once_with_their_reasons(tmp_path):
    bad = spoil(folder(tmp_path))
    with pytest.raises(BadImage, match="cannot read 4 images") as caught:
        load(tmp_path, image_size=8)
    assert caught.value.files.keys() == bad and "\n" not in str(caught.value)
    assert caught.value.files["dog/03.png"].startswith("image file is truncated")
    assert caught.value.files["dog/04.png"] == "the file is empty"
    assert caught.value.files["cat/zzz.png"] == "No such file or directory"


def test_of_files_that_are_read_later_the_heads_are_looked_at(tmp_path):
    bad = spoil(folder(tmp_path))
    with pytest.raises(BadImage) as caught:
        class_folders(tmp_path, image_size=8, max_bytes=0)
    assert caught.value.files.keys() == bad - {"dog/03.png"}  # whose head is whole


def test_of_very_many_files_only_their_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr("infopro.data._readable_images.MOST_HEADS", 5)
    bad = spoil(folder(tmp_path))
    with pytest.raises(BadImage) as caught:
        class_folders(tmp_path, image_size=8, max_bytes=0)
    assert caught.value.files.keys() == bad & {"dog/04.png", "cat/zzz.png"}


def test_skipped_are_the_same_whether_images_are_held_or_not_and_others_keep_their_place(tmp_path):
    bad = spoil(folder(tmp_path))
    held, files = (
        class_folders(tmp_path, image_size=8, max_bytes=size, bad_images=SKIP) for size in (2**30, 0)
    )
    assert isinstance(held.train, ImageTensors) and isinstance(files.train, ImageFiles)
    assert held.skipped == files.skipped and files.skipped.keys() == bad
    good = [f"{p.parent.name}/{p.name}" for p in (*files.train.paths, *files.test.paths)]
    assert len(good) == 24 - 3 and not set(good) & bad
    assert torch.equal(held.train.labels, files.train.labels) and torch.equal(
        held.test.labels, files.test.labels
    )
    pixels = torch.stack([central_crop(path, 8) for path in files.train.paths])
    assert torch.equal(held.train.images, pixels)


def test_what_a_run_left_out_stays_out_without_another_look(tmp_path, monkeypatch):
    spoil(folder(tmp_path))
    first = class_folders(tmp_path, image_size=8, max_bytes=0, bad_images=SKIP)
    grey(tmp_path / "dog/03.png")  # repaired
    monkeypatch.setattr("infopro.data._readable_images.require_decodable", pytest.fail)
    again = class_folders(
        tmp_path, image_size=8, max_bytes=0, bad_images=BadImages(skip=True, known=first.skipped)
    )
    assert names(again) == names(first) and again.skipped == first.skipped


def test_another_bad_image_is_an_error_for_a_run_that_goes_on(tmp_path):
    known = class_folders(folder(tmp_path), image_size=8, bad_images=SKIP).skipped
    assert known == {}
    (tmp_path / "dog/00.png").write_bytes(b"gone")
    with pytest.raises(BadImage, match=r"dog/00\.png"):
        class_folders(tmp_path, image_size=8, bad_images=BadImages(skip=True, known=known))


def test_whether_all_fit_is_decided_before_some_are_left_out(tmp_path):
    files = ImageFiles(tuple(sorted(folder(tmp_path).glob("*/*.png"))), torch.zeros(24, dtype=torch.int64), 8)
    known = BadImages(skip=True, known={"cat/00.png": "bad"})
    (kept,), _ = readable_images(tmp_path, [files], known, max_bytes=24 * 3 * 64 - 1)
    assert isinstance(kept, ImageFiles) and len(kept) == 23


def test_a_class_of_which_nothing_is_left_is_named(tmp_path):
    for path in (folder(tmp_path) / "dog").iterdir():
        path.write_bytes(b"no")
    with pytest.raises(BadData, match="no image can be read of class 'dog'"):
        load(tmp_path, image_size=8, on_bad_image="skip")


def masks(root, number=10, size=(12, 16)):
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for place in range(number):
        Image.fromarray(np.full((*size, 3), place, np.uint8)).save(root / "images" / f"{place}.png")
        values = (np.arange(size[0] * size[1]).reshape(size) % 3).astype(np.uint8)
        Image.fromarray(values).save(root / "masks" / f"{place}.png")
    return root


@pytest.mark.parametrize("listed", [True, False])
def test_pairs_of_which_image_or_mask_cannot_be_read_are_left_out(tmp_path, listed):
    masks(tmp_path)
    if listed:
        (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    (tmp_path / "images/3.png").write_bytes(b"no")
    whole = (tmp_path / "masks/4.png").read_bytes()
    (tmp_path / "masks/4.png").write_bytes(whole[: len(whole) - 40])
    with pytest.raises(BadImage) as caught:
        load(tmp_path)
    assert listed or caught.value.files.keys() == {"images/3.png", "masks/4.png"}  # masks are read at once
    data = load(tmp_path, on_bad_image="skip")
    assert data.skipped.keys() == {"images/3.png", "masks/4.png"}
    left = {int(image[0, 0, 0]) for part in (data.train, data.test) for image in part.images}
    assert left == set(range(10)) - {3, 4}
    Image.fromarray(np.full((12, 16, 3), 3, np.uint8)).save(tmp_path / "images/3.png")  # repaired
    again = load(tmp_path, on_bad_image="skip", skipped=data.skipped)
    assert torch.equal(again.train.images, data.train.images) and again.skipped == data.skipped


def test_a_part_of_which_nothing_is_left_is_named(tmp_path):
    for path in (masks(tmp_path) / "images").iterdir():
        path.write_bytes(b"no")
    with pytest.raises(BadData, match="no image to train on can be read"):
        load(tmp_path, on_bad_image="skip")


def test_a_mask_that_does_not_fit_is_never_silently_left_out(tmp_path):
    masks(tmp_path)
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "masks/4.png")
    with pytest.raises(BadData, match="differ in size"):
        load(tmp_path, on_bad_image="skip")
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(tmp_path / "masks/4.png")
    with pytest.raises(BadData, match="not colours"):
        load(tmp_path, on_bad_image="skip")


def test_damaged_members_of_an_archive_are_left_out_too(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "camvid.zip", "w") as archive:
        for part in ("train", "test"):
            masks(tmp_path / part, number=4)
            for kind, target in (("images", part), ("masks", f"{part}annot")):
                for place in range(4):
                    archive.write(tmp_path / part / kind / f"{place}.png", f"CamVid/{target}/{place}.png")
    content = bytearray((tmp_path / "camvid.zip").read_bytes())
    inside = content.index(b"CamVid/trainannot/2.png") + len("CamVid/trainannot/2.png") + 60
    content[inside] ^= 255
    (tmp_path / "camvid.zip").write_bytes(content)
    data = load("camvid", data_dir=tmp_path, on_bad_image="skip")
    assert list(data.skipped) == ["CamVid/trainannot/2.png"] and (len(data.train), len(data.test)) == (3, 4)


def test_data_without_image_files_leave_nothing_out(tmp_path):
    np.savez(tmp_path / "a.npz", x=1)
    for name in ("digits-on-photos", "digits-on-photos-masks", "cifar10", tmp_path / "a.npz"):
        with pytest.raises(BadConfiguration, match="is for folders of images"):
            load(name, on_bad_image="skip")


def test_links_are_followed_but_not_in_circles(tmp_path):
    folder(tmp_path / "data")
    (tmp_path / "more").mkdir()
    grey(tmp_path / "more/x.png")
    (tmp_path / "data/cat/more").symlink_to(tmp_path / "more")
    for target, place in (("..", "cat/up"), (".", "cat/same"), ("itself", "cat/itself")):
        (tmp_path / "data" / place).symlink_to(target)
    (tmp_path / "more/back").symlink_to(tmp_path / "data/cat")
    found = [path.relative_to(tmp_path / "data/cat").as_posix() for path in walked(tmp_path / "data/cat")]
    assert sorted(found) == sorted([*(f"{place:02}.png" for place in range(12)), "more/x.png", "itself"])
    assert len(load(tmp_path / "data", image_size=8).train) == 23  # a tenth of 25 is for testing


def test_odd_names_are_read_and_what_systems_leave_behind_is_not(tmp_path):
    folder(tmp_path)
    odd = ["ü b.png", "new\nline.png", "[bold].png", "x" * 240 + ".png", os.fsdecode(b"\xff\xfe.png")]
    for name in odd:
        grey(tmp_path / "cat" / name)
    for place in ("cat/.hidden", "cat/__MACOSX", "__MACOSX", ".ipynb_checkpoints"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "0.png").write_text("no image")
    for name in (".DS_Store", "Thumbs.db", "README.txt", "._0.png"):
        (tmp_path / "cat" / name).write_text("no image")
    data = class_folders(tmp_path, image_size=8, max_bytes=0)
    assert data.class_names == ("cat", "dog") and len(names(data)) == 24 + 5
    assert not {".hidden", "README.txt", "._0.png"} & set(names(data))
    assert len(data_hash(data)) == 12  # a name that is no text


def test_a_class_of_other_files_says_which(tmp_path):
    (folder(tmp_path) / "emu").mkdir()
    (tmp_path / "emu/0.heic").write_bytes(b"x")
    with pytest.raises(BadData, match=r"no images in .*emu' \(its files: 1 of \.heic\)"):
        load(tmp_path)


@pytest.fixture
def nobody():
    """Files that all may read, and a process that may not read what is closed to it: root may read all."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        folder(Path(place) / "data")
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        try:
            yield Path(place) / "data", was
        finally:
            os.seteuid(was)


@pytest.mark.parametrize("place", ["", "cat", "cat/deep"])
def test_folders_that_may_not_be_read_are_named(nobody, place):
    root, owner = nobody
    os.seteuid(owner)
    (root / "cat/deep").mkdir()
    os.chmod(root / place, 0)
    if owner == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(BadData, match="Permission denied") as caught:
            load(root, image_size=8)
    finally:
        os.seteuid(owner)
        os.chmod(root / place, 0o755)
    assert "\n" not in str(caught.value)


def test_files_that_may_not_be_read_are_named_and_can_be_skipped(nobody):
    root, owner = nobody
    os.seteuid(owner)
    os.chmod(root / "cat/00.png", 0)
    if owner == 0:
        os.seteuid(65534)
    with pytest.raises(BadImage, match=r"Permission denied\): got .*cat/00\.png"):
        load(root, image_size=8)
    assert load(root, image_size=8, on_bad_image="skip").skipped == {"cat/00.png": "Permission denied"}
