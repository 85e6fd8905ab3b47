import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from infopro.analysis import ProbeSettings
from infopro.analysis.decoding import BestConstant, Decoders, ImageProbe

SETTINGS = ProbeSettings(num_seeds=2)
ONE_SEED = replace(SETTINGS, num_seeds=1)


def images(number, seed=0):
    """Smooth grey images: two corners' brightness, interpolated."""
    corners = torch.rand(number, 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(corners, size=(8, 8), mode="bilinear", align_corners=True)


def features(x):
    return {
        "map": x,
        "zero": torch.zeros_like(x),
        "vector": x[:, 0, ::7, ::7].flatten(1),  # the four corners, which say all
        "tokens": x.flatten(2).transpose(1, 2),
    }


def trained(blocks, steps=60, settings=SETTINGS):
    found = {name: value for name, value in features(images(2)).items() if name in blocks}
    decoders = Decoders(
        {name: tuple(value.shape[1:]) for name, value in found.items()},
        constant().image,
        settings=settings,
        num_steps=steps,
        device=torch.device("cpu"),
    )
    for step in range(steps):
        batch = images(16, step)
        decoders.step(features(batch), batch)
    for start in (1000, 1001):
        decoders.test(features(images(50, start)), images(50, start))
    return decoders


def constant():
    best = BestConstant()
    for step in range(60):
        best.train(images(16, step))
    best.test(torch.cat([images(50, 1000), images(50, 1001)]))
    return best


def test_features_that_hold_the_image_are_worth_more_than_those_that_do_not():
    decoders, nothing = (
        trained(["map", "zero", "vector", "tokens"], settings=ONE_SEED),
        constant().cross_entropy,
    )
    losses = {block: decoders.cross_entropies(block) for block in ("map", "zero", "vector", "tokens")}
    test = torch.cat([images(50, 1000), images(50, 1001)])
    least = F.binary_cross_entropy(test, test).item()  # of an image known exactly
    for block in ("map", "vector", "tokens"):
        assert all(least < loss < nothing - 0.7 * (nothing - least) for loss in losses[block])
    assert losses["zero"] == pytest.approx((nothing,), abs=2e-3)


def test_a_decoder_depends_on_no_other_bit_for_bit():
    together, alone = trained(["map", "zero", "vector"], 5), trained(["vector"], 5)
    assert together.cross_entropies("vector") == alone.cross_entropies("vector")
    second = trained(["vector"], 5, replace(SETTINGS, seed=1, num_seeds=1))
    assert second.cross_entropies("vector") == alone.cross_entropies("vector")[1:]
    assert len(set(alone.cross_entropies("vector"))) == 2


def test_no_global_randomness_is_used():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = trained(["map"], 2).cross_entropies("map")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert trained(["map"], 2).cross_entropies("map") == first


def test_the_test_value_is_the_mean_over_all_images():
    decoders = trained(["map"], 5, ONE_SEED)
    whole = torch.cat([images(50, 1000), images(50, 1001)])
    drawn = decoders.draw(features(whole), seed=0)["map"]
    assert drawn.shape == whole.shape
    assert decoders.cross_entropies("map")[0] == pytest.approx(F.binary_cross_entropy(drawn, whole).item())


def test_vectors_are_laid_out_before_they_are_decoded():
    grey = torch.full((3, 20, 30), 0.5)
    probe = ImageProbe("auto", feature_shape=(5,), constant_image=grey)
    assert probe(torch.rand(2, 5)).shape == (2, 3, 20, 30)
    pooled = ImageProbe("auto", feature_shape=(5, 1, 1), constant_image=grey)
    assert pooled(torch.rand(2, 5, 1, 1)).shape == (2, 3, 20, 30)
    logits = probe.eval()(torch.rand(2, 5))
    assert logits[0, 0].std() > 0 and not torch.allclose(logits[0], logits[1])


def test_the_best_constant_is_the_mean_image_smoothed():
    train, test = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 1.0])
    best = BestConstant()
    best.train(train[:2].view(2, 1, 1, 1))
    best.train(train[2:].view(1, 1, 1, 1))
    best.test(test.view(2, 1, 1, 1))
    guess = (1 + 0.5) / (3 + 1)
    assert best.cross_entropy == pytest.approx(-(math.log(guess) + math.log(1 - guess)) / 2)
