from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from infopro.errors import BadInput
from infopro.prediction import sliding, whole
from infopro.prediction.windows import default_stride, window_starts
from infopro.tasks import Segmentation


@torch.no_grad()
def plain(network, images):
    return network.eval()(images).softmax(dim=1)


def pixel_by_pixel(network, images, tops, lefts, window):
    """What windows at these places say: each pixel is the mean over those that show it."""
    rows, columns = window
    seen = {(t, x): plain(network, images[..., t : t + rows, x : x + columns]) for t in tops for x in lefts}
    result = torch.empty(len(images), 3, *images.shape[-2:])
    for row in range(images.shape[-2]):
        for column in range(images.shape[-1]):
            found = [
                values[..., row - top, column - left]
                for (top, left), values in seen.items()
                if 0 <= row - top < rows and 0 <= column - left < columns
            ]
            result[..., row, column] = torch.stack(found).mean(dim=0)
    return result


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_overlapping_windows_are_averaged(neighbourhood, images, task, batch_size):
    batch = images(2, 3, 23, 31)
    found = sliding(neighbourhood, batch, task=task, window=(10, 12), stride=(7, 8), batch_size=batch_size)
    expected = pixel_by_pixel(neighbourhood, batch, [0, 7, 13], [0, 8, 16, 19], (10, 12))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, 23, 31))
    assert not torch.allclose(found, plain(neighbourhood, batch), atol=1e-3)  # edges of windows matter


@pytest.mark.parametrize("window", [(9, 14), (9, 200)])
def test_one_window_around_the_image_is_the_plain_forward_pass(neighbourhood, images, task, window):
    batch = images(2, 3, 9, 14)
    found = sliding(neighbourhood, batch, task=task, window=window)
    padded = F.pad(batch, (0, window[1] - 14, 0, 0))
    assert torch.equal(found, plain(neighbourhood, padded)[..., :14])
    assert torch.equal(whole(neighbourhood, batch, task=task), plain(neighbourhood, batch))


@pytest.mark.parametrize("size", [(1, 1), (1, 17), (5, 3), (37, 6), (24, 36)])
@pytest.mark.parametrize("stride", [None, (1, 1), (6, 9), (4, 5)])
def test_what_is_known_of_each_pixel_comes_out_for_any_size(pointwise, images, task, size, stride):
    batch = images(1, 3, *size)
    found = sliding(pointwise, batch, task=task, window=(6, 9), stride=stride)
    torch.testing.assert_close(found, batch.softmax(dim=1), rtol=1e-5, atol=1e-7)
    assert torch.equal(found.argmax(dim=1), batch.argmax(dim=1))
    assert {shape[2:] for shape, *_ in pointwise.seen} == {(6, 9)}


def test_windows_go_through_the_network_a_batch_at_a_time(pointwise, images, task):
    sliding(pointwise, images(2, 3, 20, 20), task=task, window=(10, 10), stride=(5, 5), batch_size=4)
    assert [shape[0] for shape, *_ in pointwise.seen] == [4, 4, 4, 4, 2]  # 9 windows of 2 images
    assert {(training, graph) for _, training, graph in pointwise.seen} == {(False, False)}


def test_windows_keep_the_order_in_memory(images, task):
    formats = []

    class Noting(nn.Module):
        def forward(self, batch):
            formats.append(batch.is_contiguous(memory_format=torch.channels_last))
            return batch

    batch = images(2, 3, 9, 10).contiguous(memory_format=torch.channels_last)
    sliding(Noting(), batch, task=task, window=(6, 12))
    assert formats and all(formats)


def test_an_image_that_is_moved_by_the_stride_is_predicted_alike(neighbourhood, images, task):
    scene = images(1, 3, 16, 64)
    here, moved = (
        sliding(neighbourhood, part, task=task, window=(16, 16), stride=(8, 8))
        for part in (scene[..., :56], scene[..., 8:])
    )
    torch.testing.assert_close(here[..., 16:48], moved[..., 8:40])
    assert not torch.allclose(here[..., 16:48], moved[..., 16:48], atol=1e-3)


def test_a_side_that_does_not_divide_is_padded_by_zeros_and_cut_off(pointwise, neighbourhood, images, task):
    batch = images(1, 3, 5, 8)
    found = whole(pointwise, batch, task=task, multiple_of=4)
    torch.testing.assert_close(found, batch.softmax(dim=1))
    assert [shape for shape, *_ in pointwise.seen] == [(1, 3, 8, 8)]
    found = whole(neighbourhood, batch, task=task, multiple_of=4)
    assert torch.equal(found, plain(neighbourhood, F.pad(batch, (0, 0, 0, 3)))[..., :5, :])


def test_coarse_logits_are_resized_before_the_softmax(images, task):
    network, batch = nn.AvgPool2d(2), images(1, 3, 8, 6)
    larger = F.interpolate(network(batch), (8, 6), mode="bilinear", align_corners=False)
    assert torch.equal(whole(network, batch, task=task), larger.softmax(dim=1))


def test_the_task_reads_the_prediction_in_what_the_network_returns(images, task):
    class Wrapped(nn.Module):
        def forward(self, batch):
            return {"out": batch, "aux": -batch}

    batch = images(1, 3, 6, 6)
    assert torch.equal(whole(Wrapped(), batch, task=task), batch.softmax(dim=1))


def test_one_class_is_certain(images):
    network = nn.Conv2d(3, 1, 1)
    found = sliding(network, images(1, 3, 9, 9), task=Segmentation(num_classes=1), window=(4, 4))
    torch.testing.assert_close(found, torch.ones(1, 1, 9, 9))


def test_half_precision_logits_are_judged_in_float32(pointwise, images, task):
    batch = images(1, 3, 6, 6).bfloat16()
    found = sliding(pointwise, batch, task=task, window=(4, 4))
    torch.testing.assert_close(found, batch.float().softmax(dim=1))


def test_the_network_is_left_as_it_was(neighbourhood, images, task):
    neighbourhood[2].eval()
    before = {name: value.clone() for name, value in neighbourhood.state_dict().items()}
    found = sliding(neighbourhood, images(1, 3, 9, 9), task=task, window=(4, 4))
    assert not found.requires_grad
    assert neighbourhood.training and neighbourhood[1].training and not neighbourhood[2].training
    after = neighbourhood.state_dict()
    assert [name for name, value in before.items() if not torch.equal(after[name], value)] == []


@pytest.mark.parametrize("length", range(1, 30))
def test_windows_cover_a_side_and_stay_inside(length):
    for window in (1, 4, 7, 30):
        for stride in range(1, window + 1):
            starts = window_starts(length, window, stride)
            covered = {pixel for start in starts for pixel in range(start, start + window)}
            assert covered == set(range(max(length, window)))
            assert starts == sorted(set(starts))
            assert all(later - start <= stride for start, later in pairwise(starts))


def test_the_default_stride_is_two_thirds():
    assert default_stride((512, 1024)) == (341, 683)  # as mmsegmentation's configurations for Cityscapes
    assert default_stride((769, 769)) == (513, 513)
    assert default_stride((1, 2)) == (1, 1)


@pytest.mark.parametrize("batch", [torch.zeros(3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)])
def test_images_that_are_no_normalised_batch_are_refused(pointwise, task, batch):
    with pytest.raises(BadInput, match="not a normalised batch"):
        whole(pointwise, batch, task=task)
    with pytest.raises(BadInput, match="not a normalised batch"):
        sliding(pointwise, batch, task=task, window=(4, 4))


def test_an_image_that_is_too_small_for_the_network_is_padded(images, task):
    sizes = []

    class Picky(nn.Module):
        def forward(self, batch):
            sizes.append(batch.shape[-2:])
            return batch

    batch = images(1, 3, 5, 40)
    found = whole(Picky(), batch, task=task, multiple_of=16, smallest=32)
    assert sizes == [(32, 48)]
    torch.testing.assert_close(found, batch.softmax(dim=1))
