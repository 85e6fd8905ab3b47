import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from infopro.analysis import ProbeSettings
from infopro.analysis.auxiliary import _Best, fit_auxiliary
from infopro.analysis.auxiliary_nets import nuisance_probe, task_probe
from infopro.analysis.estimates import Targets, auxiliary_estimates
from infopro.analysis.examples import Examples, view_of
from infopro.data import counter_generator

SETTINGS = ProbeSettings(epochs=3, steps=1, batch_size=50, nuisance_width=8)
CPU = torch.device("cpu")


def examples(number, seed):
    """Maps whose channel 0, 1 or 2 is raised by the class; channel 3 has a bright row."""
    draw = counter_generator("test", seed)
    labels = torch.randint(0, 3, (number,), generator=draw)
    row, chance = (
        torch.randint(0, 4, (number,), generator=draw),
        torch.randint(0, 2, (number,), generator=draw),
    )
    maps = torch.randn(number, 4, 4, 4, generator=draw)
    maps[torch.arange(number), labels] += 2
    maps[torch.arange(number), 3, row] += 3
    targets = {"task": labels[:, None], "nuisance": torch.stack([row, chance], dim=1)}
    return Examples({"map": maps, "zero": torch.zeros_like(maps)}, targets)


def held_out(seed=0, number=400):
    return torch.rand(number, generator=counter_generator("held", seed)) < 0.2


def estimates(settings=SETTINGS, blocks=("map", "zero"), change=lambda e: e):
    train, test = change(examples(400, 0)), change(examples(300, 1))
    train, test = (Examples({b: e.maps[b] for b in blocks}, e.targets) for e in (train, test))
    found = auxiliary_estimates(
        train,
        test,
        Targets(num_classes=3, num_values={"row": 4, "chance": 2}),
        held_out=held_out,
        settings=settings,
        device=CPU,
        on_step=lambda what, done, total: None,
    )
    return {key: (block.information, block.error) for key, block in found.items()}


def test_what_is_in_the_features_is_found_and_what_is_not_is_not():
    found = estimates(replace(SETTINGS, epochs=12))
    information, error = found["map", "task"]
    assert information["small"][0] > 0.8 and error["small"][0] < 5
    assert information["large"][0] > 0.7
    nuisance, _ = found["map", "nuisance"]
    assert nuisance["row"][0] > 1.2 and abs(nuisance["chance"][0]) < 0.05  # log 4 = 1.39
    for values in (*found["zero", "task"][0].values(), *found["zero", "nuisance"][0].values()):
        assert abs(values[0]) < 0.03


def test_a_probe_depends_on_no_other_bit_for_bit():
    together, alone = estimates(), estimates(blocks=("map",))
    assert {key: value for key, value in together.items() if key[0] == "map"} == alone
    both = estimates(replace(SETTINGS, num_seeds=2), blocks=("map",))
    first = estimates(blocks=("map",))
    second = estimates(replace(SETTINGS, seed=1), blocks=("map",))
    for key, (information, _) in both.items():
        for name, values in information.items():
            assert values == first[key][0][name] + second[key][0][name]
            assert values[0] != values[1]


def test_factors_share_no_weight():
    probe = nuisance_probe({"a": 3, "b": 2}, block="map", shape=(4, 4, 4), width=5, side=2, seed=0)
    maps = torch.rand(6, 4, 2, 2)
    logits = probe.net(maps)
    assert (
        logits.shape == (6, 2, 3) and torch.isinf(logits[:, 1, 2]).all() and logits[:, 1, :2].isfinite().all()
    )
    F.cross_entropy(logits[:, 1], torch.zeros(6).long()).backward()
    for value in probe.net.parameters():
        assert value.grad.isfinite().all()
        assert not value.grad[0].any() and value.grad[1].any()


def test_factors_side_by_side_are_ordinary_perceptrons():
    probe = nuisance_probe({"a": 3, "b": 3}, block="map", shape=(4, 4, 4), width=5, side=2, seed=0)
    maps, state = torch.rand(6, 4, 2, 2), probe.net.state_dict()
    assert probe.size == (2, 2)
    for index in range(2):
        hidden = F.linear(maps.flatten(1), state["hidden"][index], state["hidden_bias"][index]).relu()
        expected = F.linear(hidden, state["output"][index], state["output_bias"][index])
        assert torch.allclose(probe.net(maps)[:, index], expected, atol=1e-6)


def test_the_best_epoch_is_kept_for_every_factor_by_itself():
    probe = nuisance_probe({"a": 3, "b": 3}, block="map", shape=(4, 4, 4), width=5, side=2, seed=0)
    best, states = _Best(probe.net), []
    for epoch, losses in enumerate(([3.0, 1.0], [1.0, 2.0], [2.0, 3.0]), start=1):
        with torch.no_grad():
            for value in probe.net.parameters():
                value.fill_(epoch)
        states.append(epoch)
        best.offer(torch.tensor(losses, dtype=torch.float64), epoch)
    best.restore()
    assert best.epoch.tolist() == [2, 1]
    for value in probe.net.parameters():
        assert (value[0] == 2).all() and (value[1] == 1).all()


def test_labels_of_chance_are_not_learned_by_heart():
    def shuffle(images):
        order = torch.randperm(len(images.all), generator=torch.Generator().manual_seed(0))
        return Examples(images.maps, {name: values[order] for name, values in images.targets.items()})

    settings = replace(SETTINGS, epochs=12)
    for _, (information, _) in estimates(settings, blocks=("map",), change=shuffle).items():
        assert all(-0.2 < values[0] < 0.02 for values in information.values()), information


def test_the_held_out_images_choose_the_epoch_and_are_not_trained_on():
    train, test = examples(400, 0), examples(300, 1)

    def fit(train):
        probe = task_probe("0c1f", capacity="small", block="map", shape=(4, 4, 4), num_classes=3, seed=0)
        options = {"held_out": held_out(), "settings": SETTINGS, "seed": 0, "device": CPU}
        return fit_auxiliary([probe], train, test, **options)[0]

    first = fit(train)
    spoiled = train.targets["task"].clone()
    spoiled[held_out()] = 2 - spoiled[held_out()]  # what is learned makes these worse
    second = fit(Examples(train.maps, {**train.targets, "task": spoiled}))
    assert first.epoch[0] > second.epoch[0]
    assert first.cross_entropy[0] < second.cross_entropy[0]


def test_scales_are_those_of_each_channel():
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(600, 3, 2, 2, generator=draw) * torch.tensor([1e-3, 5.0, 0.0])[:, None, None] + 100
    for size in ((2, 2), (1, 1), (2, 1)):
        scaled = view_of(maps, size).of(maps)
        assert scaled.shape == (600, 3, *size)
        assert scaled.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=2e-2)
        assert scaled.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 0], abs=2e-2)


def test_a_unit_that_fired_once_does_not_drown_the_others():
    maps = torch.zeros(1000, 1, 1, 1)
    maps[0] = 1.0
    view = view_of(maps, (1, 1))
    assert view.of(torch.tensor([5.0, -5.0]).view(2, 1, 1, 1)).flatten().tolist() == [10.0, -10.0]


def test_errors_are_counted_in_percent():
    found = estimates(blocks=("zero",))
    test = examples(300, 1).targets["task"][:, 0]
    counts = torch.bincount(test, minlength=3)
    for values in found["zero", "task"][1].values():
        assert any(
            math.isclose(values[0], 100 * (1 - count / 300), abs_tol=1e-9) for count in counts.tolist()
        )
