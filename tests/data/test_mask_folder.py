import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from infopro.data import VOID, JointAugmentation, MaskFiles, MaskTensors, batches, load, mask_folder
from infopro.errors import BadConfiguration, BadData


def write(path, values, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(values, dtype=np.uint8))
    if mode == "P":
        image.putpalette([7, 0, 0, 0, 90, 0] * 128)
    image.save(path)
    return path


def pair(folder, name, number, size=(4, 6), classes=3):
    """An image of one colour, and a mask with all classes, void and the image's number."""
    mask = np.arange(size[0] * size[1]).reshape(size) % classes
    mask[0, :2] = [VOID, number % classes]
    write(folder / "images" / f"{name}.bmp", np.full((*size, 3), number))
    write(folder / "masks" / f"{name}.png", mask)


def flat(root, number=10, **options):
    for place in range(number):
        pair(root, f"{place:02}", place, **options)
    return root


def divided(root, test_name="val"):
    flat(root / "train", number=3)
    flat(root / test_name, number=2)
    return root


def numbers(part):
    return part.images[:, 0, 0, 0].tolist()


def test_a_flat_folder_gives_a_seeded_tenth_to_testing(tmp_path):
    data = mask_folder(flat(tmp_path, number=20))
    assert (len(data.train), len(data.test)) == (18, 2)
    assert sorted(numbers(data.train) + numbers(data.test)) == list(range(20))
    assert numbers(mask_folder(tmp_path).test) == numbers(data.test)
    assert any(numbers(mask_folder(tmp_path, seed=seed).test) != numbers(data.test) for seed in (1, 2))


def test_images_and_masks_keep_their_values(tmp_path):
    data = mask_folder(divided(tmp_path))
    assert isinstance(data.train, MaskTensors) and data.has_masks and data.image_shape == (3, 4, 6)
    assert numbers(data.train) == [0, 1, 2] and numbers(data.test) == [0, 1]
    for part in (data.train, data.test):
        for place, mask in enumerate(part.masks):
            expected = torch.arange(24).view(4, 6) % 3
            expected[0, :2] = torch.tensor([VOID, place])
            assert torch.equal(mask, expected.to(torch.uint8))


def test_preparation_is_that_of_scenes(tmp_path):
    data = mask_folder(divided(tmp_path))
    assert (data.mean, data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert data.augmentation == JointAugmentation(scale=(0.5, 2.0), flip=True, colour=True)
    assert data.class_names == ("0", "1", "2")
    assert data.colours == ((0, 0, 0), (128, 0, 0), (0, 128, 0))


@pytest.mark.parametrize("test_name", ["test", "val", "valid", "validation"])
def test_a_divided_folder_is_taken_as_it_is(tmp_path, test_name):
    data = mask_folder(divided(tmp_path, test_name))
    assert (len(data.train), len(data.test)) == (3, 2)


def test_test_goes_before_val(tmp_path):
    flat(divided(tmp_path) / "test", number=1)
    assert len(mask_folder(tmp_path).test) == 1


def test_load_recognises_it_before_it_thinks_of_class_folders(tmp_path):
    assert load(divided(tmp_path / "one")).has_masks
    assert load(str(flat(tmp_path / "two"))).has_masks
    (tmp_path / "two" / "masks").rename(tmp_path / "two" / "labels")
    assert not load(tmp_path / "two", image_size=8).has_masks


def test_class_names_and_colours_may_be_listed(tmp_path):
    divided(tmp_path)
    (tmp_path / "classes.txt").write_text("sky  70 130 180\n\nbig tree\nroad\t1 2 3\nnever seen\n")
    data = mask_folder(tmp_path)
    assert data.class_names == ("sky", "big tree", "road", "never seen") and data.num_classes == 4
    assert data.colours == ((70, 130, 180), (128, 0, 0), (1, 2, 3), (128, 128, 0))


@pytest.mark.parametrize(
    ("text", "said"), [("one\n", "got 1"), ("a 1 2 256\nb", "'a 1 2 256'"), ("", "got 0")]
)
def test_a_list_of_classes_that_cannot_be_is_refused(tmp_path, text, said):
    (divided(tmp_path) / "classes.txt").write_text(text)
    with pytest.raises(BadData, match=rf"classes\.txt.*{said}"):
        mask_folder(tmp_path)


def test_a_value_beyond_the_listed_classes_names_file_and_value(tmp_path):
    (divided(tmp_path) / "classes.txt").write_text("sky\ntree\nroad\n")
    write(tmp_path / "train" / "masks" / "01.png", np.full((4, 6), 9))
    with pytest.raises(BadData, match=r"train/masks/01\.png.*got 9; allowed: 0 to 2, 255"):
        mask_folder(tmp_path)


def test_several_bad_masks_are_named_together(tmp_path):
    (flat(tmp_path, number=9) / "classes.txt").write_text("sky\ntree\nroad\n")
    for place in range(7):
        write(tmp_path / "masks" / f"0{place}.png", np.full((4, 6), 10 + place))
    with pytest.raises(BadData, match=r"\d images or masks are unfit.*masks/0\d\.png.*got 1\d.*more$"):
        mask_folder(tmp_path)


def test_bad_masks_of_both_parts_are_named_together(tmp_path):
    divided(tmp_path)
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    first, second = (sorted((tmp_path / part / "masks").iterdir())[0] for part in ("train", "val"))
    for mask, value in ((first, 7), (second, 9)):
        write(mask, np.full((4, 6), value))
    with pytest.raises(BadData, match=r"2 images or masks are unfit.*train.*got 7.*val.*got 9"):
        mask_folder(tmp_path)
    for mask in (first, second):
        write(mask, np.zeros((5, 6)))
    with pytest.raises(BadData, match=r"train.*of 5 x 6, .*val.*of 5 x 6"):
        mask_folder(tmp_path)


def test_masks_of_sixteen_bits_count_as_they_are(tmp_path):
    flat(tmp_path)
    Image.fromarray(np.full((4, 6), 2, dtype=np.uint16)).save(tmp_path / "masks" / "03.png")
    assert mask_folder(tmp_path).num_classes == 3
    Image.fromarray(np.full((4, 6), 300, dtype=np.uint16)).save(tmp_path / "masks" / "03.png")
    with pytest.raises(BadData, match=r"03\.png.*got 300"):
        mask_folder(tmp_path)


def test_palette_masks_hold_their_indices(tmp_path):
    flat(tmp_path)
    write(tmp_path / "masks" / "03.png", np.full((4, 6), 2), mode="P")
    data = mask_folder(tmp_path)
    place = numbers(data.train).index(3) if 3 in numbers(data.train) else None
    mask = data.test.masks[numbers(data.test).index(3)] if place is None else data.train.masks[place]
    assert (mask == 2).all() and data.num_classes == 3


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_masks_in_colours_are_refused(tmp_path, mode):
    flat(tmp_path)
    Image.new("RGB", (6, 4), (128, 0, 0)).convert(mode).save(tmp_path / "masks" / "03.png")
    with pytest.raises(BadData, match=rf"03\.png.*class numbers, not colours: got mode {mode}"):
        mask_folder(tmp_path)


def test_masks_of_another_size_are_named_with_their_images(tmp_path):
    flat(tmp_path)
    for place in range(7):
        write(tmp_path / "masks" / f"0{place}.png", np.zeros((6, 4)))
    said = r"images/00\.bmp' of 4 x 6 with .*masks/00\.png' of 6 x 4.*04\.png' of 6 x 4, and 2 more"
    with pytest.raises(BadData, match=said):
        mask_folder(tmp_path)


def test_images_without_mask_and_masks_without_image_are_listed(tmp_path):
    flat(tmp_path)
    for place in range(6):
        (tmp_path / "masks" / f"0{place}.png").unlink()
    (tmp_path / "images" / "09.bmp").unlink()
    said = r"1 without image: '09'; 6 without mask: '00', '01', '02', '03', '04', and 1 more"
    with pytest.raises(BadData, match=said):
        mask_folder(tmp_path)


def test_a_jpeg_is_no_mask_and_two_images_of_one_name_are_refused(tmp_path):
    flat(tmp_path)
    (tmp_path / "masks" / "03.png").rename(tmp_path / "masks" / "03.jpg")
    with pytest.raises(BadData, match="1 without mask: '03'"):
        mask_folder(tmp_path)
    write(tmp_path / "masks" / "03.png", np.zeros((4, 6)))
    write(tmp_path / "images" / "03.png", np.zeros((4, 6, 3)))
    with pytest.raises(BadData, match=r"same name.*03\.bmp.*03\.png"):
        mask_folder(tmp_path)
    for mask in list((tmp_path / "masks").iterdir()):
        mask.rename(mask.with_suffix(".jpg"))
    (tmp_path / "images" / "03.png").unlink()
    with pytest.raises(BadData, match=r"there are no masks \(a JPEG does not keep class numbers\)"):
        mask_folder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"this is no image", None])
@pytest.mark.parametrize("file", ["images/03.bmp", "masks/03.png"])
def test_broken_files_are_named(tmp_path, content, file):
    path = flat(tmp_path) / file
    path.write_bytes(path.read_bytes()[:60] if content is None else content)
    with pytest.raises(BadData, match=file) as caught:
        mask_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_hidden_and_other_files_are_passed_over_and_deep_ones_found(tmp_path):
    flat(tmp_path)
    (tmp_path / "images" / "._00.bmp").write_bytes(b"junk")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    write(tmp_path / "images" / "deep" / "00.bmp", np.full((4, 6, 3), 77))
    write(tmp_path / "masks" / "deep" / "00.png", np.zeros((4, 6)))
    data = mask_folder(tmp_path)
    assert 77 in numbers(data.train) + numbers(data.test) and len(data.train) + len(data.test) == 11


def test_folders_that_are_no_data_set_are_refused(tmp_path):
    with pytest.raises(BadData, match=r"no such folder.*missing"):
        mask_folder(tmp_path / "missing")
    with pytest.raises(BadData, match=r"does not hold images and masks.*ROOT/train"):
        mask_folder(tmp_path)
    for name in ("images", "masks"):
        (tmp_path / "empty" / name).mkdir(parents=True)
    with pytest.raises(BadData, match=r"no images with masks.*empty"):
        mask_folder(tmp_path / "empty")
    with pytest.raises(BadData, match="one image only"):
        mask_folder(flat(tmp_path / "single", number=1))
    flat(tmp_path / "half" / "train", number=2)
    with pytest.raises(BadData, match=r"no test part.*half"):
        mask_folder(tmp_path / "half")


def test_void_alone_is_allowed_in_a_mask_but_not_in_all(tmp_path):
    flat(tmp_path)
    write(tmp_path / "masks" / "03.png", np.full((4, 6), VOID))
    data = mask_folder(tmp_path)
    masks = torch.cat([data.train.masks, data.test.masks])
    assert (masks == VOID).all(2).all(1).sum() == 1
    for path in (tmp_path / "masks").iterdir():  # as tools write masks of one object
        write(path, np.where(np.arange(24).reshape(4, 6) > 9, 255, 0))
    with pytest.raises(BadData, match=r"one class at most besides void.*number the classes 0, 1"):
        mask_folder(tmp_path)


def test_large_sets_stay_files_with_the_same_pixels(tmp_path):
    divided(tmp_path)
    limit = 5 * 4 * 24  # images of three channels, and masks
    tensors, files = (mask_folder(tmp_path, max_bytes=size) for size in (limit, limit - 1))
    assert isinstance(tensors.train, MaskTensors) and isinstance(files.train, MaskFiles)
    assert files.train.own_size == (4, 6) and files.image_shape == tensors.image_shape
    options = {
        "batch_size": 3, "shuffle": False, "seed": 0, "epoch": 0, "device": "cpu", "augmentation": None,
        "mean": (0.5,) * 3, "std": (0.5,) * 3,
    }  # fmt: skip
    one, two = (next(batches(data.train, **options)) for data in (tensors, files))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])


def test_images_of_different_sizes_stay_files_until_they_get_one(tmp_path):
    flat(tmp_path)
    pair(tmp_path, "wide", 200, size=(3, 40))
    whole = load(tmp_path)
    assert isinstance(whole.train, MaskFiles)
    assert {part.common_size for part in (whole.train, whole.test)} <= {None, (4, 6), (3, 40)}
    sized = load(tmp_path, image_size=(8, 10))
    assert isinstance(sized.train, MaskTensors) and sized.image_shape == (3, 8, 10)
    assert load(tmp_path, image_size=5).train.masks.shape[1:] == (5, 5)
    with pytest.raises(BadConfiguration, match="image size"):
        load(tmp_path, image_size=(0, 5))


def png_of_four_bits(rows):
    """Grey, as Pillow itself does not write it."""

    def chunk(kind, content):
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 4, 0, 0, 0, 0)
    lines = b"".join(
        b"\0" + bytes(left << 4 | right for left, right in zip(row[::2], row[1::2], strict=True))
        for row in rows
    )
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_grey_masks_of_four_bits_are_not_spread_over_the_byte(tmp_path):
    flat(tmp_path)
    (tmp_path / "masks" / "03.png").write_bytes(png_of_four_bits([[0, 1, 2, 3, 4, 5]] * 4))
    assert mask_folder(tmp_path).num_classes == 6
