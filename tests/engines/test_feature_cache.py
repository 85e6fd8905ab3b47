import json
import shutil
from collections import namedtuple

import pytest
import torch

from infopro.engines.feature_cache import DiskTooSmall, FeatureCache, cache_bytes
from infopro.errors import BadInput, BadRun, InfoProError, NotYetSupported

CPU = torch.device("cpu")
KINDS = {
    "contiguous": lambda x: x,
    "channels-last": lambda x: x.to(memory_format=torch.channels_last),
    "channels-last, one pixel": lambda x: x[:, :, :1, :1].contiguous(memory_format=torch.channels_last),
    "one pixel": lambda x: x[:, :, :1, :1].contiguous(),
    "time first": lambda x: x.flatten(2).permute(1, 0, 2).contiguous().permute(1, 0, 2),
    "transposed rows": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "vectors": lambda x: x.flatten(1),
    "labels": lambda x: (x[:, 0, 0, 0] * 100).long(),
    "bfloat16": lambda x: x.bfloat16(),
    "bool": lambda x: x > 0.5,
}


def features(size=10, seed=0):
    return torch.rand(size, 3, 4, 5, generator=torch.Generator().manual_seed(seed))


def written(folder, tensors, *, views=1, batch_size=4, configuration="hash"):
    """A cache of whole tensors [views * N, ...], written in batches as a module would leave them."""
    size = len(next(iter(tensors.values()))) // views
    starts = [
        (view * size + i, min(batch_size, size - i))
        for view in range(views)
        for i in range(0, size, batch_size)
    ]
    batches = [{name: like(t[i : i + n], t) for name, t in tensors.items()} for i, n in starts]
    return FeatureCache.write(folder, batches, configuration=configuration, num_images=size, views=views)


def like(part, whole):
    """A batch of its own, laid out in memory as the whole is."""
    order = sorted(range(whole.dim()), key=lambda d: -whole.stride(d))
    dense = part.permute(order).contiguous()
    return dense.permute([order.index(d) for d in range(whole.dim())])


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_has_values_dtype_and_memory_format_of_what_was_written(tmp_path, kind):
    whole = KINDS[kind](features())
    rows = torch.tensor([7, 2, 2, 9, 0])
    expected = like(whole[rows], whole)
    found = written(tmp_path / "cache", {"x": whole}).read(rows, device=CPU)["x"]
    assert found.dtype == expected.dtype and torch.equal(found, expected)
    assert found.stride() == expected.stride()


def test_one_pixel_maps_keep_the_format_that_kernels_look_at(tmp_path):
    x = KINDS["channels-last, one pixel"](features())
    cache = FeatureCache.write(tmp_path / "cache", [{"x": x}], configuration="", num_images=10)
    assert cache.read(torch.arange(4), device=CPU)["x"].stride() == x.stride()


def test_views_stand_one_after_another(tmp_path):
    views = torch.stack([features(seed=view) for view in range(3)])
    cache = written(tmp_path / "cache", {"x": views.flatten(0, 1)}, views=3)
    assert (cache.num_images, cache.views) == (10, 3)
    for view in range(3):
        found = cache.read(torch.tensor([9, 1]), view=view, device=CPU)["x"]
        assert torch.equal(found, views[view, [9, 1]])


@pytest.mark.parametrize("mask", [torch.rand(3, 3), torch.tensor(2.5)], ids=["matrix", "number"])
def test_what_all_images_share_is_stored_once(tmp_path, mask):
    batches = [{"x": features(5), "mask": mask.clone()}, {"x": features(5), "mask": mask.clone()}]
    cache = FeatureCache.write(tmp_path / "cache", batches, configuration="", num_images=10, shared={"mask"})
    found = cache.read(torch.tensor([1, 8, 3]), device=CPU)["mask"]
    assert torch.equal(found, mask) and found.shape == mask.shape
    assert (tmp_path / "cache" / "mask.bin").stat().st_size == mask.numel() * 4
    batches[1]["mask"] = mask + 1
    with pytest.raises(NotYetSupported, match="always the same"):
        FeatureCache.write(tmp_path / "cache", batches, configuration="", num_images=10, shared={"mask"})


def test_the_size_is_known_beforehand(tmp_path):
    batch = {
        "x": features(2).bfloat16(),
        "targets": torch.zeros(2, dtype=torch.int64),
        "mask": torch.zeros(7),
    }
    batches = [{**batch, "x": features(6).bfloat16(), "targets": torch.arange(6)} for _ in range(2)]
    FeatureCache.write(tmp_path / "c", batches, configuration="", num_images=6, views=2, shared={"mask"})
    expected = cache_bytes(batch, num_images=6, views=2, shared={"mask"})
    assert expected == 12 * (60 * 2 + 8) + 28
    assert sum(file.stat().st_size for file in (tmp_path / "c").glob("*.bin")) == expected


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(9999, 7600, 2399))
    with pytest.raises(
        DiskTooSmall, match=r"got 2,399 bytes free; allowed: 2,400 or more; .*fewer views"
    ) as error:
        written(tmp_path / "cache", {"x": features()})
    assert "\n" not in str(error.value) and not (tmp_path / "cache").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(9999, 7599, 2400))
    written(tmp_path / "cache", {"x": features()})


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadRun, match="cached features cannot be written"):
        written(tmp_path / "file" / "cache", {"x": features()})


def test_an_interrupted_cache_is_not_read_and_is_replaced(tmp_path):
    def interrupted():
        yield {"x": features(5)}
        raise KeyboardInterrupt

    folder = tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        FeatureCache.write(folder, interrupted(), configuration="hash", num_images=10)
    assert (folder / "x.bin").exists() and FeatureCache.open(folder, configuration="hash") is None
    written(folder, {"y": features()})
    assert sorted(file.name for file in folder.iterdir()) == ["manifest.json", "y.bin"]
    assert FeatureCache.open(folder, configuration="hash") is not None


def test_an_error_of_the_images_is_not_taken_for_one_of_the_disk(tmp_path):
    def unreadable():
        yield {"x": features(5)}
        raise FileNotFoundError("an image")

    with pytest.raises(FileNotFoundError, match="an image"):
        FeatureCache.write(tmp_path / "cache", unreadable(), configuration="", num_images=10)


def test_a_replaced_cache_is_gone_from_the_first_moment(tmp_path):
    """Else a run that is killed while it rewrites would find the old manifest beside new features."""
    written(tmp_path / "cache", {"x": features()})

    def looks():
        yield {"x": features(10, seed=1)}
        assert FeatureCache.open(tmp_path / "cache", configuration="hash") is None

    FeatureCache.write(tmp_path / "cache", looks(), configuration="hash", num_images=10)


def damage_text(folder):
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text()[:-40])


def damage_type(folder):
    (folder / "manifest.json").write_text("[]")


def damage_entry(folder):
    record = json.loads((folder / "manifest.json").read_text())
    del record["tensors"]["x"]["strides"]
    (folder / "manifest.json").write_text(json.dumps(record))


def damage_dtype(folder):
    record = json.loads((folder / "manifest.json").read_text())
    record["tensors"]["x"]["dtype"] = "float31"
    (folder / "manifest.json").write_text(json.dumps(record))


def cut_file(folder):
    content = (folder / "x.bin").read_bytes()
    (folder / "x.bin").write_bytes(content[:-1])


def drop_file(folder):
    (folder / "x.bin").unlink()


@pytest.mark.parametrize(
    "damage", [damage_text, damage_type, damage_entry, damage_dtype, cut_file, drop_file, shutil.rmtree]
)
def test_a_damaged_cache_is_not_read(tmp_path, damage):
    written(tmp_path / "cache", {"x": features()})
    assert FeatureCache.open(tmp_path / "cache", configuration="hash") is not None
    damage(tmp_path / "cache")
    assert FeatureCache.open(tmp_path / "cache", configuration="hash") is None


def test_a_cache_of_another_configuration_is_not_read(tmp_path):
    written(tmp_path / "cache", {"x": features()}, configuration="one")
    assert FeatureCache.open(tmp_path / "cache", configuration="other") is None
    assert FeatureCache.open(tmp_path / "cache", configuration="one").configuration == "one"


def test_an_opened_cache_reads_what_was_written(tmp_path):
    whole = features().to(memory_format=torch.channels_last)
    written(tmp_path / "cache", {"x": whole})
    found = FeatureCache.open(tmp_path / "cache", configuration="hash").read(torch.arange(10), device=CPU)[
        "x"
    ]
    assert torch.equal(found, whole) and found.stride() == whole.stride()


@pytest.mark.parametrize(
    ("second", "error"),
    [(features(5)[:, :2], NotYetSupported), (features(5).double(), NotYetSupported), (features(4), BadInput)],
    ids=["another shape", "another dtype", "too few"],
)
def test_batches_that_do_not_belong_together_are_refused(tmp_path, second, error):
    batches = [{"x": features(5)}, {"x": second}]
    with pytest.raises(error) as raised:
        FeatureCache.write(tmp_path / "cache", batches, configuration="hash", num_images=10)
    assert isinstance(raised.value, InfoProError) and "\n" not in str(raised.value)
    assert FeatureCache.open(tmp_path / "cache", configuration="hash") is None


def test_removing_takes_the_folder_with_it(tmp_path):
    written(tmp_path / "cache", {"x": features()})
    FeatureCache.remove(tmp_path / "cache")
    FeatureCache.remove(tmp_path / "cache")
    assert list(tmp_path.iterdir()) == []


def test_what_is_read_is_a_copy(tmp_path):
    cache = written(tmp_path / "cache", {"x": features()})
    cache.read(torch.arange(10), device=CPU)["x"].zero_()
    assert torch.equal(cache.read(torch.arange(10), device=CPU)["x"], features())
