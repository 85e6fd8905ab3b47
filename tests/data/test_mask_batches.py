import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from infopro.data import (
    VOID,
    Augmentation,
    ImageTensors,
    JointAugmentation,
    MaskFiles,
    MaskTensors,
    batch_sizes,
    batches,
    num_batches,
)
from infopro.errors import BadConfiguration, BadData, NotYetSupported

ALL = JointAugmentation(crop=(6, 8), scale=(0.5, 2.0), flip=True, colour=True)
CLASSES = {**{value: value for value in range(5)}, VOID: VOID}
workers_fork = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)  # Python 3.12's, on fork


def arrays(number, size=(10, 12)):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (number, *size, 3), dtype=np.uint8)
    masks = generator.integers(0, 5, (number, *size), dtype=np.uint8)
    masks[:, 0, 0] = np.arange(number)  # which image it is
    return images, np.where(masks == 4, VOID, masks).astype(np.uint8)


def tensors(number=11):
    images, masks = arrays(number)
    masks[:, 0, 0] = np.arange(number)
    return MaskTensors(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks))


def write(folder, number=11, size=(10, 12)):
    images, masks = arrays(number, size)
    masks[:, 0, 0] = 0
    for place in range(number):
        Image.fromarray(images[place]).save(folder / f"{place}.bmp")
        Image.fromarray(masks[place]).save(folder / f"{place}.png")
    return [tuple(f"{place}.{kind}" for place in range(number)) for kind in ("bmp", "png")]


@pytest.fixture
def files(tmp_path):
    return MaskFiles(tmp_path, *write(tmp_path), CLASSES, own_size=(10, 12))


@pytest.fixture
def archive(tmp_path):
    names = write(tmp_path)
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as target:
        for name in (*names[0], *names[1]):
            target.write(tmp_path / name, name)
    return MaskFiles(tmp_path / "set.zip", *names, CLASSES, own_size=(10, 12))


@pytest.fixture
def uneven(tmp_path):
    names = write(tmp_path, 5)
    rows = np.zeros((7, 5), dtype=np.uint8)
    Image.fromarray(rows).save(tmp_path / "3.png")
    Image.fromarray(rows).save(tmp_path / "3.bmp")
    return MaskFiles(tmp_path, *names, CLASSES)


def read(split, **changes):
    options = {
        "batch_size": 4, "augmentation": ALL, "shuffle": True, "seed": 0, "epoch": 1, "device": "cpu",
        "mean": (0.5,) * 3, "std": (0.25,) * 3,
    }  # fmt: skip
    return list(batches(split, **{**options, **changes}))


def equal(left, right):
    pairs = zip(left, right, strict=True)
    return all(torch.equal(a, b) for one, two in pairs for a, b in zip(one, two, strict=True))


def held(files):
    """The same pairs as tensors, read by Pillow alone."""
    images = [np.array(Image.open(files.root / name)) for name in files.image_files]
    masks = [np.array(Image.open(files.root / name)) for name in files.mask_files]
    return MaskTensors(
        torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.from_numpy(np.stack(masks))
    )


def test_whole_images_come_normalised_with_their_masks():
    split = tensors()
    found = read(split, augmentation=None)
    assert [len(images) for images, _ in found] == [4, 4, 3]
    for images, masks in found:
        assert images.dtype == torch.float32 and masks.dtype == torch.int64
        numbers = masks[:, 0, 0]
        assert torch.equal(masks, split.masks[numbers].long()) and (masks == VOID).any()
        assert torch.allclose(images, (split.images[numbers] / 255 - 0.5) / 0.25, atol=1e-5)
    assert sorted(torch.cat([masks[:, 0, 0] for _, masks in found]).tolist()) == list(range(11))


def test_files_give_what_tensors_give(files):
    for augmentation in (None, ALL, JointAugmentation(flip=True)):
        assert equal(read(files, augmentation=augmentation), read(held(files), augmentation=augmentation))


@workers_fork
def test_an_archive_gives_what_its_files_give_for_any_number_of_workers(files, archive):
    whole = read(files)
    assert [tuple(images.shape) for images, _ in whole] == [(4, 3, 6, 8), (4, 3, 6, 8), (3, 3, 6, 8)]
    assert equal(read(archive), whole)
    assert equal(read(archive, num_workers=2), whole)
    assert equal(read(files, num_workers=2), whole)


def test_a_resumed_epoch_equals_the_undisturbed_one(files):
    for split in (tensors(), files):
        whole = read(split)
        for first_batch in range(4):
            torch.manual_seed(5)  # the global stream must not matter
            assert equal(read(split, first_batch=first_batch), whole[first_batch:])


def test_parts_are_what_the_whole_batch_has(files):
    for split in (tensors(), files):
        left, right = (read(split, part=(index, 2)) for index in (0, 1))
        joined = [tuple(map(torch.cat, zip(*pair, strict=True))) for pair in zip(left, right, strict=True)]
        assert equal(joined, read(split))


def test_the_augmentation_depends_on_seed_epoch_and_place_only(files):
    for split in (tensors(), files):
        small, large = (read(split, batch_size=size, shuffle=False) for size in (2, 11))
        assert torch.equal(torch.cat([images for images, _ in small]), large[0][0])
        assert not equal(large, read(split, batch_size=11, shuffle=False, epoch=2))
        assert not equal(large, read(split, batch_size=11, shuffle=False, seed=1))


def test_the_global_random_stream_is_left_alone(files):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    read(tensors())
    read(files)
    assert torch.equal(torch.rand(1), expected)


def test_without_a_crop_training_images_keep_their_common_size(files):
    for split in (tensors(), files):
        options = {"augmentation": JointAugmentation(scale=(0.5, 2.0), flip=True)}
        assert {tuple(images.shape[1:]) for images, _ in read(split, **options)} == {(3, 10, 12)}


def test_an_augmentation_that_does_nothing_gives_whole_images(files):
    for nothing in (JointAugmentation(), Augmentation()):
        assert equal(read(files, augmentation=nothing), read(files, augmentation=None))


def test_padding_is_the_mean_colour(files):
    crop = JointAugmentation(crop=(20, 20))
    for images, masks in read(files, augmentation=crop, mean=(0.1, 0.5, 0.9)):
        assert images.permute(1, 0, 2, 3)[:, masks == VOID].abs().quantile(0.5) < 0.01
        assert ((masks != VOID).sum((1, 2)) <= 120).all() and ((masks == VOID).sum((1, 2)) >= 280).all()


def test_images_of_different_sizes_are_cropped_or_come_one_by_one(uneven):
    assert [len(images) for images, _ in read(uneven)] == [5]
    assert batch_sizes(uneven, batch_size=4, augmentation=ALL) == (5,)
    assert batch_sizes(uneven, batch_size=4) == (1,) * 5 and num_batches(uneven, batch_size=4) == 5
    whole = read(uneven, augmentation=None, shuffle=False)
    assert [tuple(masks.shape) for _, masks in whole] == [
        (1, 10, 12), (1, 10, 12), (1, 10, 12), (1, 7, 5), (1, 10, 12)
    ]  # fmt: skip
    assert equal(read(uneven, augmentation=None, shuffle=False, first_batch=3), whole[3:])


def test_images_of_different_sizes_without_crop_are_refused_at_once(uneven):
    options = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "shuffle": True, "seed": 0, "epoch": 1, "device": "cpu"}
    for augmentation in (JointAugmentation(flip=True), JointAugmentation()):
        with pytest.raises(BadConfiguration, match=r"no common size.*pass crop"):
            batches(uneven, batch_size=4, augmentation=augmentation, **options)
    with pytest.raises(NotYetSupported, match=r"1 and 2.*image_size"):
        batches(uneven, batch_size=4, augmentation=None, part=(0, 2), **options)


def test_a_size_makes_one_batch_of_images_of_different_sizes(uneven):
    sized = MaskFiles(uneven.root, uneven.image_files, uneven.mask_files, CLASSES, size=(5, 6))
    ((images, masks),) = read(sized, augmentation=None, shuffle=False)
    assert images.shape == (5, 3, 5, 6)
    with Image.open(uneven.root / "0.png") as mask:
        assert np.array_equal(masks[0].numpy(), np.array(mask.resize((6, 5), Image.Resampling.NEAREST)))
    with Image.open(uneven.root / "0.bmp") as image:
        theirs = np.array(image.resize((6, 5), Image.Resampling.BILINEAR)).astype(int)
    ours = (images[0] * 0.25 + 0.5) * 255
    assert np.abs(ours.permute(1, 2, 0).numpy() - theirs).max() <= 1.01


def test_augmentations_of_the_other_kind_are_refused(files):
    with pytest.raises(BadConfiguration, match="leaves masks behind"):
        read(files, augmentation=Augmentation(flip=True))
    labelled = ImageTensors(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(BadConfiguration, match="with masks"):
        read(labelled)


@workers_fork
@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("name", ["7.bmp", "7.png"])
def test_a_broken_file_is_named_in_one_line(files, name, num_workers):
    (files.root / name).write_bytes((files.root / name).read_bytes()[:60])
    with pytest.raises(BadData, match=name) as caught:
        read(files, num_workers=num_workers)
    assert "\n" not in str(caught.value)


def test_a_value_that_is_no_class_is_named_with_its_file(files):
    Image.fromarray(np.full((10, 12), 77, dtype=np.uint8)).save(files.root / "5.png")
    with pytest.raises(BadData, match=r"5\.png.*got 77; allowed: 0 to 4, 255"):
        read(files)


def test_a_mask_of_another_size_is_named_with_its_image(files):
    Image.fromarray(np.zeros((5, 12), dtype=np.uint8)).save(files.root / "5.png")
    with pytest.raises(BadData, match=r"5\.bmp' of 10 x 12 with .*5\.png' of 5 x 12"):
        read(files)


def test_an_archive_that_is_none_and_a_member_that_is_missing_are_named(tmp_path, archive):
    lacking = MaskFiles(archive.root, ("gone.bmp",), ("0.png",), CLASSES, own_size=(10, 12))
    with pytest.raises(BadData, match=r"set\.zip/gone\.bmp"):
        read(lacking)
    (tmp_path / "no.zip").write_bytes(b"no archive")
    with pytest.raises(BadData, match=r"cannot read the zip archive.*no\.zip"):
        read(MaskFiles(Path(tmp_path / "no.zip"), ("0.bmp",), ("0.png",), CLASSES, own_size=(10, 12)))


def test_a_share_without_images_is_refused_for_files_and_empty_for_tensors(files):
    assert [len(masks) for _, masks in read(tensors(5), part=(0, 2), batch_size=1)] == [0] * 5
    with pytest.raises(NotYetSupported, match="1 and 2"):
        read(files, part=(0, 2), batch_size=1)
