"""Files that were cut, flipped or made up: each is read, or refused in one line, and takes little memory."""

import io
import resource
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from infopro.data import load, npz_file
from infopro.data._decode import central_crop, class_values, extent, random_crop, whole_image
from infopro.errors import InfoProError

FORMATS = ("jpeg", "png", "webp", "gif", "bmp", "tiff", "ppm")
KINDS = (*FORMATS, "mask", "npz", "packed npz")
PER_KIND = 28
MOST_MEMORY = 400  # MB that all of them together may add to the peak


def whole(kind):
    """A small file without fault."""
    generator, stream = np.random.default_rng(0), io.BytesIO()
    if "npz" in kind:
        images = generator.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
        parts = {"x_train": images, "y_train": np.arange(6) % 2, "x_test": images, "y_test": np.arange(6) % 2}
        (np.savez_compressed if kind == "packed npz" else np.savez)(stream, **parts)
    elif kind == "mask":
        Image.fromarray(generator.integers(0, 3, (13, 17), dtype=np.uint8)).save(stream, format="png")
    else:
        pixels = generator.integers(0, 256, (13, 17, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(stream, format=kind)
    return stream.getvalue()


def spoilt(content, seed):
    """Cut off, with bytes changed, with a piece repeated, left out or of another file's."""
    generator = np.random.default_rng(seed)
    data = bytearray(content)
    first, length = int(generator.integers(len(data))), int(generator.integers(1, 40))
    way = seed % 7
    if way == 0:
        return bytes(data[:first])
    if way == 1:  # heads say most
        first = first % 64
    if way == 2:
        del data[first : first + length]
    elif way == 3:
        data[first:first] = data[first : first + length] * 3
    elif way == 4:
        data[first : first + length] = bytes([255]) * length
    elif way == 5:
        other = whole(FORMATS[seed % len(FORMATS)])
        data[first : first + length] = other[:length]
    else:
        for place in (*generator.integers(len(data), size=3), first):
            data[place] ^= int(generator.integers(1, 256))
    return bytes(data)


def read(path, kind):
    """Whatever would read such a file; what it gives is of the promised kind."""
    if "npz" in kind:
        data = npz_file(path)
        assert data.train.images.dtype == torch.uint8 and data.train.labels.dtype == torch.int64
    elif kind == "mask":
        values = class_values(path)
        assert values.ndim == 2 and values.dtype.kind in "iu" and extent(path) == values.shape
    else:
        image = whole_image(path)
        assert image.dtype == torch.uint8 and image.shape == (3, *extent(path))
        for crop in (central_crop(path, 8), random_crop(path, 8, torch.Generator().manual_seed(0))):
            assert crop.dtype == torch.uint8 and crop.shape == (3, 8, 8)


@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_files_are_read_or_refused_in_one_line(tmp_path, kind):
    path = tmp_path / ("file.npz" if "npz" in kind else "file.jpg")
    content = whole(kind)
    path.write_bytes(content)
    read(path, kind)  # the test tests
    before, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for seed in range(PER_KIND):
        path.write_bytes(spoilt(content, seed))
        try:
            read(path, kind)  # a warning is an error here, and none may come out
        except InfoProError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1 and "file" in str(error) and len(str(error)) < 600
    assert refused > 0
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MOST_MEMORY


@pytest.mark.parametrize("seed", range(14))
def test_spoilt_pairs_are_read_skipped_or_refused(tmp_path, seed):
    for kind, form in (("images", "png"), ("masks", "mask")):
        (tmp_path / kind).mkdir()
        for place in range(4):
            (tmp_path / kind / f"{place}.png").write_bytes(whole(form))
    spoils = ("images", "png") if seed % 2 else ("masks", "mask")
    (tmp_path / spoils[0] / "1.png").write_bytes(spoilt(whole(spoils[1]), 100 + seed))
    for choice in ("error", "skip"):
        try:
            data = load(tmp_path, on_bad_image=choice)
        except InfoProError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert len(data.train) + len(data.test) + len(data.skipped) == 4


def npy(dtype, shape, content=b"", order=False):
    head = f"{{'descr': {dtype!r}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + content


def archive(path, changes):
    members = {
        "x_train": npy("|u1", (6, 4, 4), bytes(96)),
        "y_train": npy("<i8", (6,), np.arange(6).astype("<i8").tobytes()),
        "x_test": npy("|u1", (6, 4, 4), bytes(96)),
        "y_test": npy("<i8", (6,), np.arange(6).astype("<i8").tobytes()),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stream:
        for name, content in {**members, **changes}.items():
            stream.writestr(f"{name}.npy", content)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"x_train": npy(">u2", (6, 4, 4), bytes(192))},  # big-endian
        {"x_train": npy("|u1", (6, 4, 4), bytes(96), order=True)},
        {"y_train": npy(">i4", (6,), np.arange(6).astype(">i4").tobytes())},
        {"x_train": npy("<f2", (6, 4, 4), bytes(192))},
        {"more": b"no array"},
    ],
)
def test_unusual_arrays_are_read(tmp_path, changes):
    archive(tmp_path / "a.npz", changes)
    data = npz_file(tmp_path / "a.npz")
    assert data.train.labels.tolist() == list(range(6)) and data.image_shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x_train": npy("|u1", (10**12, 4, 4), bytes(96))}, "cannot read the .npz file"),
        ({"x_train": npy("|u1", (-1, 4, 4), bytes(96))}, "cannot read the .npz file"),
        ({"x_train": npy("|u1", (2**62, 2**62), bytes(96))}, "cannot read the .npz file"),
        ({"x_train": npy("|O", (6, 4, 4), b"cos\nsystem\n(S'false'\ntR.")}, "allow_pickle=False"),
        ({"x_train": npy("|V9", (6,), bytes(54))}, "wrong shape"),
        ({"x_train": npy("<U4", (6, 4, 4), bytes(1536))}, "wrong type"),
        ({"x_train": npy("<c8", (6, 4, 4), bytes(768))}, "wrong type"),
        ({"x_train": npy("<M8[s]", (6, 4, 4), bytes(768))}, "wrong type"),
        ({"x_train": b""}, "cannot read the .npz file"),
        ({"x_train": b"\x93NUMPY\x01\x00\xff\xff{"}, "cannot read the .npz file"),
        ({"x_train": npy("<f4", (6, 4, 4), np.full(96, np.nan, "<f4").tobytes())}, "out of range"),
        ({"x_train": npy("<f4", (6, 4, 4), np.full(96, np.inf, "<f4").tobytes())}, "out of range"),
        (
            {"y_train": npy("<u8", (6,), (np.arange(6).astype("<u8") + np.uint64(2**63)).tobytes())},
            "has test labels that no",
        ),
        (
            {"y_train": npy("<i8", (6,), (np.arange(6) * 10**12).astype("<i8").tobytes())},
            "has test labels that no",
        ),
        (
            {name: npy("<i8", (6,), np.full(6, 10**12, "<i8").tobytes()) for name in ("y_train", "y_test")},
            "do not number classes",
        ),
        ({"y_train": npy("<i8", (6,), (np.arange(6) - 1).astype("<i8").tobytes())}, "negative"),
        ({"y_train": npy("<f8", (6,), np.arange(6).astype("<f8").tobytes())}, "not class numbers"),
        ({"y_train": npy("<i8", (5,), bytes(40))}, "differ in length"),
        ({"x_train": npy("|u1", (), b"\0")}, "wrong shape"),
        ({"x_train": npy("|u1", (6, 0, 4))}, "without pixels"),
    ],
)
def test_arrays_that_no_data_set_has_are_refused(tmp_path, changes, said):
    archive(tmp_path / "a.npz", changes)
    with pytest.raises(InfoProError, match=said) as caught:
        npz_file(tmp_path / "a.npz")
    assert len(str(caught.value).splitlines()) == 1


def test_what_would_unpack_to_gigabytes_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["infopro.data.npz_file"], "UNQUESTIONED", 2**20)
    archive(tmp_path / "a.npz", {"x_train": npy("|u1", (2**17, 4, 4), bytes(2**21))})
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(InfoProError, match=r"its \d+ bytes would become 20\d+"):
        npz_file(tmp_path / "a.npz")


def test_what_a_file_calls_its_parts_cannot_command_the_terminal(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as stream:
        stream.writestr("\x1b[2J\r\nall is well\x9b.npy", npy("|u1", (1,), b"\0"))
    with pytest.raises(InfoProError) as caught:
        npz_file(tmp_path / "a.npz")
    assert str(caught.value).isprintable() and r"\x1b[2J\r all is well\x9b" in str(caught.value)
