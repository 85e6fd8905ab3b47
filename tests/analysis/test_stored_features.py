from collections import namedtuple

import pytest
import torch

from infopro.analysis import stored_features
from infopro.analysis.stored_features import feature_room
from infopro.errors import BadConfiguration

SHAPES = {"stem": (2, 3, 3), "layer1": (4, 1, 1)}
NEEDED = 4 * 10 * (2 * 9 + 4)  # bytes of 10 images


def filled(memory):
    with feature_room(SHAPES, num_images=10, memory=memory) as allocate:
        parts = [allocate(7), allocate(3)]
        for part in parts:
            for maps in part.values():
                maps.copy_(torch.arange(maps.numel()).view(maps.shape))
        return [{name: maps.clone() for name, maps in part.items()} for part in parts]


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_features.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_file_holds_what_memory_would_hold(temporary):
    for in_memory, in_file in zip(filled(NEEDED), filled(NEEDED - 1), strict=True):
        assert list(in_memory) == list(in_file) == list(SHAPES)
        for name, maps in in_memory.items():
            assert maps.shape[1:] == SHAPES[name] and maps.dtype == torch.float32
            assert torch.equal(maps, in_file[name])


def test_what_fits_makes_no_file_and_what_does_not_leaves_none(temporary):
    with feature_room(SHAPES, num_images=10, memory=NEEDED) as allocate:
        allocate(10)
        assert list(temporary.iterdir()) == []
    with (
        pytest.raises(RuntimeError, match="broken"),
        feature_room(SHAPES, num_images=10, memory=0) as allocate,
    ):
        allocate(10)
        (folder,) = temporary.iterdir()
        assert sum(file.stat().st_size for file in folder.iterdir()) == NEEDED
        raise RuntimeError("broken")
    assert list(temporary.iterdir()) == []


def test_a_full_disk_is_refused_before_anything_is_written(temporary, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(stored_features.shutil, "disk_usage", lambda folder: usage(2, 1, 2**20))
    big = {"stem": (64, 32, 32)}
    with (
        pytest.raises(BadConfiguration, match=r"neither in memory nor on the disk: got 2\.4 GiB.*TMPDIR"),
        feature_room(big, num_images=10_000, memory=0),
    ):
        pass
    assert list(temporary.iterdir()) == []


def test_nothing_to_store_takes_no_room():
    with feature_room({}, num_images=10, memory=1) as allocate:
        assert allocate(10) == {}
