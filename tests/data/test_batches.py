import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from infopro.data import Augmentation, ImageFiles, ImageTensors, batches, num_batches
from infopro.errors import BadConfiguration, BadData

ALL = Augmentation(crop_padding=1, flip=True, random_resized_crop=True)


def numbered(number, size=4):
    images = torch.randint(0, 256, (number, 1, size, size), generator=torch.Generator().manual_seed(0))
    return ImageTensors(images.to(torch.uint8), torch.arange(number))


def iterate(split, *, mean=(0.5,), std=(0.5,), **changes):
    options = {
        "batch_size": 4, "augmentation": None, "shuffle": True, "seed": 0, "epoch": 1, "device": "cpu",
    }  # fmt: skip
    return batches(split, mean=mean, std=std, **{**options, **changes})


def read(split, **options):
    return list(iterate(split, **options))


def equal(left, right):
    pairs = zip(left, right, strict=True)
    return all(torch.equal(a, b) for one, two in pairs for a, b in zip(one, two, strict=True))


@pytest.fixture
def files(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (11, 20, 24, 3), dtype=np.uint8)
    paths = tuple(tmp_path / f"{number}.png" for number in range(11))
    for path, pixels in zip(paths, colours, strict=True):
        Image.fromarray(pixels).save(path)
    return ImageFiles(paths, torch.arange(11), image_size=8)


@pytest.mark.parametrize("number", range(1, 14))
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 20])
def test_every_image_once_and_no_batch_of_one_unless_it_cannot_be_helped(number, batch_size):
    sizes = [len(labels) for _, labels in read(numbered(number), batch_size=batch_size)]
    labels = torch.cat([labels for _, labels in read(numbered(number), batch_size=batch_size)])
    assert sorted(labels.tolist()) == list(range(number))
    assert len(sizes) == num_batches(numbered(number), batch_size=batch_size)
    assert all(size == batch_size for size in sizes[:-1])
    if batch_size > 1 and number > 1:
        assert min(sizes) > 1 and max(sizes) <= batch_size + 1


def test_order_depends_on_seed_and_epoch_and_only_on_them():
    def labels(**changes):
        return torch.cat([labels for _, labels in read(numbered(30), **changes)]).tolist()

    assert labels() == labels() and labels() == labels(batch_size=7)
    assert labels() != labels(epoch=2) and labels() != labels(seed=1)
    assert labels(shuffle=False) == list(range(30))


def test_images_stay_with_their_labels_and_are_normalised():
    split = numbered(9)
    for images, labels in read(split):
        assert torch.allclose(images, split.images[labels] / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("first_batch", [0, 1, 3, 5])
def test_a_resumed_epoch_equals_the_undisturbed_one(first_batch):
    split = numbered(21)
    whole = read(split, augmentation=ALL)
    torch.manual_seed(5)  # the global stream must not matter
    assert equal(read(split, augmentation=ALL, first_batch=first_batch), whole[first_batch:])


def test_augmentation_changes_with_seed_epoch_and_batch():
    split = ImageTensors(
        numbered(1).images.expand(24, -1, -1, -1).contiguous(), torch.zeros(24, dtype=torch.int64)
    )
    base = read(split, augmentation=ALL)
    assert not equal(base, read(split, augmentation=ALL, epoch=2))
    assert not equal(base, read(split, augmentation=ALL, seed=1))
    assert not torch.equal(base[0][0], base[1][0])


def test_the_global_random_stream_is_left_alone(files):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    read(numbered(9), augmentation=ALL)
    read(files, mean=(0.5,) * 3, std=(0.5,) * 3, augmentation=ALL)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)  # Python 3.12's, on fork
def test_files_give_the_same_batches_for_any_number_of_workers_and_any_start(files):
    options = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "augmentation": ALL}
    whole = read(files, **options)
    assert [tuple(images.shape) for images, _ in whole] == [(4, 3, 8, 8), (4, 3, 8, 8), (3, 3, 8, 8)]
    assert equal(read(files, num_workers=2, **options), whole)
    assert equal(read(files, first_batch=1, **options), whole[1:])
    fixed = {**options, "shuffle": False}  # so that only the augmentation can differ
    assert not equal(read(files, epoch=2, **fixed), read(files, **fixed))
    assert not equal(read(files, seed=1, **fixed), read(files, **fixed))


def test_the_augmentation_of_a_file_depends_on_its_place_not_on_its_batch(files):
    options = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "augmentation": ALL, "shuffle": False}
    small, large = (read(files, batch_size=size, **options) for size in (2, 11))
    assert torch.equal(torch.cat([images for images, _ in small]), large[0][0])


def test_batches_of_files_need_no_rearranging_for_a_channels_last_network(files):
    flips = Augmentation(flip=True, random_resized_crop=True)
    for augmentation in (None, flips):
        for images, _ in read(files, mean=(0.5,) * 3, std=(0.5,) * 3, augmentation=augmentation):
            assert images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()


def test_files_without_augmentation_are_their_middle(files):
    (images, labels), *_ = read(files, mean=(0,) * 3, std=(1,) * 3, shuffle=False)
    with Image.open(files.paths[0]) as image:
        middle = image.resize((11, 9), Image.Resampling.BILINEAR).crop((1, 0, 9, 8))
    assert labels.tolist() == [0, 1, 2, 3]
    assert torch.allclose(images[0], torch.tensor(np.array(middle)).permute(2, 0, 1) / 255)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_file_is_named_in_one_line(files, num_workers):
    files.paths[7].write_bytes(files.paths[7].read_bytes()[:200])
    with pytest.raises(BadData, match=r"7\.png") as caught:
        read(files, mean=(0.5,) * 3, std=(0.5,) * 3, num_workers=num_workers)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_workers_leave_signals_to_their_parent(files, number):
    """As where a batch system signals every process of a run: the loop decides, and reads on until then."""
    options = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "augmentation": ALL, "num_workers": 2}
    reading = iterate(files, **options)
    found = [next(reading), next(reading)]  # one of each worker: both are at work
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, number)
    assert equal([*found, *reading], read(files, **options))
    assert not any(worker.is_alive() for worker in workers)


def test_wrong_numbers_are_refused_at_once():
    with pytest.raises(BadConfiguration, match="batch size"):
        num_batches(numbered(3), batch_size=0)
    options = {"mean": (0.5,), "std": (0.5,), "augmentation": None, "shuffle": True, "seed": 0, "epoch": 1}
    with pytest.raises(BadConfiguration, match="0 to 2"):
        batches(numbered(8), batch_size=4, device="cpu", first_batch=3, **options)
