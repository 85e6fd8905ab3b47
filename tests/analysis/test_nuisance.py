import pytest
import torch

from infopro.analysis.nuisance import factors_of
from infopro.data import ImageFiles, ImageTensors, digits_on_photos


def part(number, **nuisance):
    labels = torch.arange(number) % 2
    values = {name: torch.as_tensor(value) for name, value in nuisance.items()}
    return ImageTensors(torch.zeros(number, 1, 2, 2, dtype=torch.uint8), labels, None, values)


def factor(train, test, bins=4):
    found, notes = factors_of(part(len(train), r=train), part(len(test), r=test), bins=bins)
    return (found[0] if found else None), notes


def test_few_values_are_numbered():
    found, notes = factor([10, 40, 20, 10], [40, 20, 10, 20])
    assert notes == () and found.num_values == 3
    assert found.train.tolist() == [0, 2, 1, 0] and found.test.tolist() == [2, 1, 0, 1]


def test_many_values_are_cut_into_equal_parts_of_the_training_images():
    found, _ = factor(list(range(100)), [-5, 24, 25, 49, 50, 74, 75, 500])
    assert found.num_values == 4
    assert torch.bincount(found.train).tolist() == [25, 25, 25, 25]
    assert found.test.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_numbers_with_fractions_are_binned_though_no_value_comes_twice():
    draw = torch.Generator().manual_seed(0)
    train, test = torch.rand(1000, generator=draw), torch.rand(1000, generator=draw)
    found, notes = factor(train, test, bins=8)
    assert notes == () and found.num_values == 8
    assert (torch.bincount(found.test) - 125).abs().max() < 50


def test_a_frequent_value_may_fill_several_bins():
    found, _ = factor([0] * 60 + list(range(1, 41)), [0, 1, 14, 15, 16, 40], bins=4)
    assert found.num_values == 2  # 0 fills two bins, and with 1 to 15 a part of the third
    assert found.test.tolist() == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("train", "test", "reason"),
    [
        ([1, 2, 3, 4], [5, 6, 7, 8], "no value of the test images occurs"),
        ([0, 1, 0, 1, 0, 1], [0, 1, 0, 1], "it determines the class"),
        ([3, 3, 3, 3], [3, 3, 3, 3], "it is constant"),
        ([0, 0, 1, 1], [1, 1, 1, 1], "it is constant"),
        ([[0, 1], [1, 0]], [[0, 1], [1, 1]], "it is not one number per image"),
    ],
)
def test_unsuited_factors_are_left_out_with_a_reason(train, test, reason):
    found, notes = factor(train, test)
    assert found is None
    assert len(notes) == 1 and notes[0].startswith("nuisance 'r' is left out: ") and reason in notes[0]


def test_a_factor_of_one_part_only_is_left_out():
    found, notes = factors_of(part(4, r=[0, 1, 1, 0]), part(4), bins=4)
    assert found == () and "both parts" in notes[0]


def test_digits_on_photos_has_seven_factors_and_leaves_out_the_digits_number():
    data = digits_on_photos(train_size=400, test_size=200)
    found, notes = factors_of(data.train, data.test, bins=8)
    expected = ["crop_left", "crop_scale", "crop_top", "digit_left", "digit_size", "digit_top", "photo"]
    assert [f.name for f in found] == expected
    sizes = {f.name: f.num_values for f in found}
    assert sizes["photo"] == 2 and sizes["crop_scale"] == 3 and max(sizes.values()) == 8
    assert len(notes) == 1 and "'source'" in notes[0]


def test_files_have_no_known_nuisance():
    files = ImageFiles((), torch.zeros(0, dtype=torch.int64), 8)
    assert factors_of(files, files, bins=8) == ((), ())
