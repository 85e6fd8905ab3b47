"""What every auxiliary net must do, whatever file it comes from."""

import pickle

import pytest
import torch
from torch import nn

from infopro.errors import BadConfiguration, NotYetSupported, UnknownName
from infopro.heads import decoder, list_decoders, list_task_heads, task_head

LAYOUTS = {
    "map": ((6, 8, 8), (3, 16, 16)),
    "one position": ((5, 1, 1), (3, 8, 8)),
    "grey, not square, odd": ((7, 5, 3), (1, 9, 6)),
    "two channels": ((2, 4, 6), (2, 8, 12)),
    "channels last": ((4, 4, 6), (3, 16, 16)),
    "tokens": ((16, 6), (3, 16, 16)),
    "class token": ((17, 6), (3, 16, 16)),
    "registers": ((21, 6), (3, 16, 16)),
    "no grid": ((7 * 31, 4), (3, 16, 16)),
    "vector": ((6,), (3, 8, 8)),
}
# what the map of every layout is, for nets that predict at each of its positions
GRIDS = {
    "map": (8, 8),
    "one position": (1, 1),
    "grey, not square, odd": (5, 3),
    "two channels": (4, 6),
    "channels last": (4, 4),
    "tokens": (4, 4),
    "class token": (4, 4),
    "registers": (4, 4),
    "vector": (1, 1),
}
BATCH = 3
CLASSES = 4


def heads_found():
    plain = [("task", name) for name in list_task_heads(dense=False)]
    dense = [("dense", name) for name in list_task_heads()]
    return plain + dense + [("decoder", name) for name in list_decoders()]


def build(kind, name, feature_shape, image_shape):
    torch.manual_seed(0)
    if kind == "decoder":
        return decoder(name, feature_shape=feature_shape, image_shape=image_shape)
    shapes = {"feature_shape": feature_shape, "image_shape": image_shape}
    return task_head(name, **shapes, out_features=CLASSES, dense=kind == "dense")


def features_of(shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(BATCH, *shape, generator=generator, dtype=dtype).requires_grad_()


def weighted_sum(output):
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return (output * weights.to(output.dtype)).sum()


def without_dropout(head):
    for module in head.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return head


every_head = pytest.mark.parametrize(("kind", "name"), heads_found())
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


@every_head
@every_layout
def test_shape_range_and_gradients(kind, name, layout):
    feature_shape, image_shape = LAYOUTS[layout]
    if kind == "dense" and layout not in GRIDS:
        with pytest.raises(NotYetSupported, match="tokens that are no grid of the image: got 217 tokens"):
            build(kind, name, feature_shape, image_shape)
        return
    head, features = build(kind, name, feature_shape, image_shape), features_of(feature_shape)
    output = head(features)
    if kind == "dense":
        assert output.shape[:2] == (BATCH, CLASSES)
        # a net may reduce the map, but not below an eighth of the image, and never enlarges it
        least = [min(at, -(-side // 8)) for at, side in zip(GRIDS[layout], image_shape[1:], strict=True)]
        sides = zip(least, output.shape[2:], GRIDS[layout], strict=True)
        assert all(low <= side <= high for low, side, high in sides)
    else:
        assert output.shape == (BATCH, *(image_shape if kind == "decoder" else (CLASSES,)))
    assert output.isfinite().all()
    if kind == "decoder":
        assert output.min() > 0 and output.max() < 1
    weighted_sum(output).backward()
    missing = [parameter for parameter, value in head.named_parameters() if value.grad is None]
    assert missing == []
    assert features.grad.isfinite().all()
    assert features.grad.abs().sum() > 0


@every_head
def test_prefix_tokens_receive_a_gradient(kind, name):
    feature_shape, image_shape = LAYOUTS["registers"]
    features = features_of(feature_shape)
    weighted_sum(build(kind, name, feature_shape, image_shape)(features)).backward()
    assert (features.grad[:, :5].abs().sum(dim=2) > 0).all()


@every_head
@pytest.mark.parametrize("layout", ["one position", "class token"])
def test_gradient_is_the_derivative(kind, name, layout):
    feature_shape, image_shape = LAYOUTS[layout]
    head = without_dropout(build(kind, name, feature_shape, image_shape).double())
    features = features_of(feature_shape, torch.float64)
    assert torch.autograd.gradcheck(lambda x: weighted_sum(head(x)), (features,), fast_mode=True)


@every_head
def test_state_dict_round_trip(kind, name):
    feature_shape, image_shape = LAYOUTS["map"]
    first, second = (build(kind, name, feature_shape, image_shape).eval() for _ in range(2))
    with torch.no_grad():
        for value in second.parameters():
            value.add_(0.1)
    features = features_of(feature_shape)
    assert not torch.equal(first(features), second(features))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(features), second(features))


@every_head
def test_pickles(kind, name):
    feature_shape, image_shape = LAYOUTS["class token"]
    head = build(kind, name, feature_shape, image_shape).eval()
    copy = pickle.loads(pickle.dumps(head))
    features = features_of(feature_shape)
    assert torch.equal(head(features), copy(features))


@every_head
def test_runs_under_autocast(kind, name):
    feature_shape, image_shape = LAYOUTS["class token"]
    head, features = build(kind, name, feature_shape, image_shape), features_of(feature_shape)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = head(features.bfloat16())
    assert output.isfinite().all()
    assert output.dtype == (torch.float32 if kind == "decoder" else torch.bfloat16)


@every_head
def test_parameters_are_named_by_layer(kind, name):
    head = build(kind, name, *LAYOUTS["map"])
    assert all(parameter.startswith("layers.") for parameter, _ in head.named_parameters())


def test_unknown_names_list_the_near_ones():
    with pytest.raises(UnknownName, match=r"unknown task head: got '1c4f'; did you mean .*1c2f"):
        build("task", "1c4f", *LAYOUTS["map"])
    with pytest.raises(UnknownName, match="unknown decoder: got 'imagnet'; did you mean imagenet"):
        build("decoder", "imagnet", *LAYOUTS["map"])


def test_a_head_for_pixels_is_refused_for_images():
    with pytest.raises(BadConfiguration, match=r"it is for dense tasks: got 'fcn'; allowed: auto, 0c1f, .*"):
        build("task", "fcn", *LAYOUTS["map"])


def test_pixels_need_an_image():
    with pytest.raises(BadConfiguration, match=r"prediction for every pixel: got an input of shape \[784\]"):
        build("dense", "auto", (64,), (784,))
