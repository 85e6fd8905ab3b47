import math

import pytest
import torch
from torch import nn

from infopro.analysis import compare_blocks, linear_cka
from infopro.errors import BadInput, UnknownName
from infopro.models.cifar_resnet import CifarResNet

WIDE = ("layer1.0", "layer2.0")
NARROW = ("relu", "layer1.0", "layer3.0")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hsic(left, right):
    """Nguyen et al. (2021), equation 3, term by term."""
    n = len(left)
    k, m = (x.flatten(1).double() @ x.flatten(1).double().T for x in (left, right))
    k, m = (x - torch.diag(torch.diag(x)) for x in (k, m))
    one = torch.ones(n, dtype=torch.float64)
    terms = torch.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return (terms - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))


def cka(pairs):
    """Equation 2: every HSIC is a mean over the batches."""
    between = sum(hsic(x, y) for x, y in pairs)
    return (between / (sum(hsic(x, x) for x, _ in pairs) * sum(hsic(y, y) for _, y in pairs)).sqrt()).item()


def network(width, seed):
    torch.manual_seed(seed)
    model = CifarResNet(blocks=(1, 1, 1), widths=(width, width, width), num_classes=3, in_channels=3)
    model.bn1.running_mean += 0.1
    return model.train()


def batches(*sizes):
    return [(normal(size, 3, 16, 16, seed=seed).float(), None) for seed, size in enumerate(sizes)]


def test_one_batch_equals_the_formula():
    left, right = normal(12, 5), normal(12, 7, seed=1) + 3
    right[:, :5] += left
    assert linear_cka(left, right) == pytest.approx(cka([(left, right)]), abs=1e-12)
    # and not the biased estimator, which is 1 - O(1/n) for features without any relation
    centred = [x - x.mean(0) for x in (left, right)]
    grams = [x @ x.T for x in centred]
    biased = (grams[0] * grams[1]).sum() / (grams[0].norm() * grams[1].norm())
    assert abs(biased.item() - linear_cka(left, right)) > 0.05


def test_a_network_is_like_itself():
    x = normal(20, 6)
    assert linear_cka(x, x) == pytest.approx(1, abs=1e-12)


def test_rotation_shift_and_scale_change_nothing():
    left, right = normal(30, 6), normal(30, 4, seed=1).float()
    right[:, 0] += 2 * left[:, 0]
    rotation = torch.linalg.qr(normal(6, 6, seed=2)).Q
    moved = 1000 + 7.5 * left @ rotation
    assert 0.1 < linear_cka(left, right) < 0.9
    assert linear_cka(moved, right) == pytest.approx(linear_cka(left, right), abs=1e-9)
    # but another linear map does: CKA is not invariant to those
    assert abs(linear_cka(left * torch.arange(1, 7), right) - linear_cka(left, right)) > 0.05


def test_independent_features_are_unlike():
    found = [linear_cka(normal(50, 40, seed=s), normal(50, 40, seed=100 + s)) for s in range(30)]
    assert abs(sum(found) / 30) < 0.03 and min(found) < 0  # unbiased: about 0, not above it


def test_features_that_do_not_vary_have_no_similarity():
    assert math.isnan(linear_cka(torch.full((8, 3), 0.1), normal(8, 3)))


def test_too_few_or_other_images():
    for left, right in [(normal(3, 2), normal(3, 2)), (normal(8, 2), normal(9, 2))]:
        with pytest.raises(BadInput, match="features of the same images"):
            linear_cka(left, right)


def test_two_networks_over_batches_equal_the_formula_and_stay_as_they_were():
    wide, narrow = network(8, 0), network(4, 1)
    before = [{n: v.clone() for n, v in m.state_dict().items()} for m in (wide, narrow)]
    images, seen = batches(6, 6), []
    found = compare_blocks(
        wide, narrow, images, rows=WIDE, columns=NARROW, row_run="a", column_run="b", on_batch=seen.append
    )
    assert (found.row_run, found.column_run, found.rows, found.columns) == ("a", "b", WIDE, NARROW)
    for model, state in zip((wide, narrow), before, strict=True):
        assert model.training and not any(m._forward_hooks for m in model.modules())
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert seen == [1, 2]
    wide.eval(), narrow.eval()
    for i, row in enumerate(WIDE):
        for j, column in enumerate(NARROW):
            pairs = [(features(wide, row, x), features(narrow, column, x)) for x, _ in images]
            assert found.values[i][j] == pytest.approx(cka(pairs), abs=1e-9)


@torch.no_grad()
def features(model, name, images):
    kept = []
    handle = model.get_submodule(name).register_forward_hook(lambda m, a, out: kept.append(out.clone()))
    model(images)
    handle.remove()
    return kept[0]


def test_a_networks_own_blocks_form_a_symmetric_table():
    model, images = network(4, 0), batches(8)
    own = compare_blocks(model, model, images, rows=NARROW, columns=NARROW).values
    assert all(own[i][i] == pytest.approx(1, abs=1e-12) for i in range(3))
    assert all(own[i][j] == pytest.approx(own[j][i], abs=1e-12) for i in range(3) for j in range(3))
    assert own[0][1] != own[0][2]
    # asked for in another way: the same network, run twice for the two sides
    some = compare_blocks(model, model, images, rows=NARROW, columns=NARROW[1:]).values
    assert some == tuple(row[1:] for row in own)


def test_batches_of_fewer_than_four_images_are_left_out():
    model = network(4, 0)
    with_rest, without = (
        compare_blocks(model, model, batches(*sizes), rows=WIDE, columns=WIDE) for sizes in [(8, 3), (8,)]
    )
    assert with_rest == without
    assert with_rest != compare_blocks(model, model, batches(8, 4), rows=WIDE, columns=WIDE)
    with pytest.raises(BadInput, match=r"no batch is large enough for CKA; allowed: 4 images"):
        compare_blocks(model, model, batches(3), rows=WIDE, columns=WIDE)


def test_an_unknown_block_is_named_and_leaves_no_hook():
    model = network(4, 0)
    with pytest.raises(UnknownName, match=r"unknown block: got 'layer9'"):
        compare_blocks(model, model, batches(8), rows=WIDE, columns=["layer9"])
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("layout", ["map", "channels_last", "tokens"])
def test_only_large_features_are_pooled(layout, monkeypatch):
    """2 x 8 x 8 numbers, of which 2 x 4 x 4 may stay, in every layout that networks use."""

    class Features(nn.Module):
        def forward(self, images):
            if layout == "channels_last":
                return images.permute(0, 2, 3, 1)
            return images.flatten(2).transpose(1, 2) if layout == "tokens" else images

    model, other = nn.Sequential(Features()), nn.Sequential(nn.AvgPool2d(2))
    images = [(normal(8, 2, 8, 8).float(), None)]

    def value():
        return compare_blocks(model, other, images, rows=["0"], columns=["0"]).values[0][0]

    assert value() < 0.95
    monkeypatch.setattr("infopro.analysis.similarity.LARGEST_FEATURES", 32)
    assert value() == pytest.approx(1, abs=1e-9)
