import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import horizontal_flip
from torchvision.transforms.v2.functional import resize as torchvision_resize

from infopro.errors import BadConfiguration
from infopro.prediction import MULTI_SCALE, Inference, probabilities


def resize(maps, size, *, antialias):
    return torchvision_resize(maps, list(size), interpolation=InterpolationMode.BILINEAR, antialias=antialias)


@torch.no_grad()
def plain(network, images):
    return network.eval()(images).softmax(dim=1)


def test_by_default_it_is_the_plain_forward_pass(neighbourhood, images, task):
    batch = images(3, 3, 11, 13)
    assert torch.equal(probabilities(neighbourhood, batch, task=task), plain(neighbourhood, batch))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(24, 30), (17, 13)])
def test_scales_and_mirror_images_are_averaged(neighbourhood, images, task, size, flip):
    batch = images(2, 3, *size)
    found = probabilities(neighbourhood, batch, task=task, inference=Inference(scales=MULTI_SCALE, flip=flip))
    views = []
    for scale in (0.5, 0.75, 1, 1.25, 1.5, 1.75):
        scaled = resize(batch, [round(side * scale) for side in size], antialias=True)
        views.append(resize(plain(neighbourhood, scaled), size, antialias=False))
        if flip:
            mirrored = horizontal_flip(plain(neighbourhood, horizontal_flip(scaled)))
            views.append(resize(mirrored, size, antialias=False))
    torch.testing.assert_close(found, torch.stack(views).mean(dim=0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, *size))


def test_with_flip_a_mirrored_image_is_predicted_as_the_mirror_image(ramp, images, task):
    batch = images(1, 3, 9, 12)
    for inference, alike in ((Inference(flip=True), True), (Inference(), False)):
        here = probabilities(ramp, batch, task=task, inference=inference)
        there = probabilities(ramp, batch.flip(-1), task=task, inference=inference).flip(-1)
        assert torch.allclose(here, there, atol=1e-6) == alike


def test_an_even_image_is_the_same_at_every_scale(pointwise, task):
    even = torch.tensor([0.5, -1.0, 2.0]).view(1, 3, 1, 1).expand(1, 3, 10, 14)
    inference = Inference(scales=(0.1, 1.0, 2.3), flip=True, window=(8, 8))
    found = probabilities(pointwise, even, task=task, inference=inference)
    torch.testing.assert_close(found, even.softmax(dim=1))


def test_windows_slide_over_the_scaled_image(pointwise, images, task):
    inference = Inference(window=(8, 8), stride=(8, 8), scales=(2.0,), batch_size=100)
    found = probabilities(pointwise, images(1, 3, 8, 16), task=task, inference=inference)
    assert [shape for shape, *_ in pointwise.seen] == [(8, 3, 8, 8)]
    assert found.shape == (1, 3, 8, 16)


def test_images_are_brought_to_a_size_and_the_prediction_back(pointwise, images, task):
    batch = images(1, 3, 20, 10)
    inference = Inference(size=(8, 12), scales=(1.0, 0.5))
    found = probabilities(pointwise, batch, task=task, inference=inference)
    assert [shape[2:] for shape, *_ in pointwise.seen] == [(8, 12), (4, 6)]
    smaller = [resize(batch, size, antialias=True) for size in ((8, 12), (4, 6))]
    expected = [resize(part.softmax(dim=1), (20, 10), antialias=False) for part in smaller]
    torch.testing.assert_close(found, (expected[0] + expected[1]) / 2)


def test_whole_images_go_through_the_network_a_batch_at_a_time(pointwise, images, task):
    batch = images(5, 3, 6, 6)
    found = probabilities(pointwise, batch, task=task, inference=Inference(batch_size=2, multiple_of=4))
    assert [shape for shape, *_ in pointwise.seen] == [(2, 3, 8, 8), (2, 3, 8, 8), (1, 3, 8, 8)]
    torch.testing.assert_close(found, batch.softmax(dim=1))


class Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_no_value_is_read(neighbourhood, images, task):
    inference = Inference(window=(8, 8), scales=(0.5, 1.0), flip=True)
    batch = images(2, 3, 12, 12)
    with Calls() as calls:
        probabilities(neighbourhood, batch, task=task, inference=inference)
    assert "convolution" in calls.names
    assert not {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "lift_fresh"} & calls.names


WRONG = {
    "no scale": ({"scales": ()}, "scales is ()"),
    "scale 0": ({"scales": (1.0, 0.0)}, "scales is (1.0, 0.0)"),
    "not finite": ({"scales": (float("inf"),)}, "scales is (inf,)"),
    "no window": ({"window": (0, 8)}, "window is (0, 8)"),
    "not a multiple": ({"window": (32, 40), "multiple_of": 32}, "multiples of 32"),
    "gaps": ({"window": (8, 8), "stride": (9, 8)}, "stride is (9, 8)"),
    "standing still": ({"window": (8, 8), "stride": (8, 0)}, "stride is (8, 0)"),
    "stride alone": ({"stride": (8, 8)}, "without a window"),
    "no size": ({"size": (0, 4)}, "size is (0, 4)"),
    "no batch": ({"batch_size": 0}, "batch_size is 0"),
    "no multiple": ({"multiple_of": 0}, "multiple_of is 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_out_of_range_is_named(case):
    options, message = WRONG[case]
    with pytest.raises(BadConfiguration) as caught:
        Inference(**options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_all_problems_are_named_at_once():
    with pytest.raises(BadConfiguration, match=r"window .*; also: scales .*; also: batch_size"):
        Inference(window=(0, 0), scales=(), batch_size=0)
