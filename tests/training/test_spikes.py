"""Losses that leap: what counts as a leap, that nothing else does, and that watching changes nothing."""

import math
import random
import statistics

import pytest
import torch

from infopro.objectives import Greedy
from infopro.training import Diverged, Spiked, make_optimizer, make_schedule, stop_at_spikes, train
from infopro.training.spikes import DEVIATIONS, FEWEST, IN_A_ROW, LEAST, RECENT, SpikeWatch

STEPS = 10  # of an epoch of 40 images in batches of 4


def watched(losses, **options):
    found = []
    watch = SpikeWatch(range(1), on_spike=found.append, **options)
    for step, loss in enumerate(losses):
        watch.look(0, loss, epoch=1, step=step)
    return found, watch


def noisy(number, *, seed=0, level=2.0):
    generator = random.Random(seed)
    return [generator.gauss(level, 0.1) for _ in range(number)]


def by_hand(losses):
    """The rule without its shortcuts: the steps (from 0) at which a third high loss in a row is seen."""
    found, high, largest = [], 0, 0.0
    for step, loss in enumerate(losses):
        recent = losses[max(0, step - RECENT) : step]
        if len(recent) < FEWEST:
            continue
        median = statistics.median(recent)
        deviation = 1.4826 * statistics.median([abs(value - median) for value in recent])
        largest = max(largest, abs(median))
        limit = median + max(DEVIATIONS * deviation, LEAST * largest)
        high = high + 1 if loss > limit else 0
        found += [step] if high == IN_A_ROW else []
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_rule_is_what_it_says(seed):
    generator = random.Random(seed)
    losses = [2 * math.exp(-step / 200) * generator.lognormvariate(0, 0.3) for step in range(400)]
    for start in (30, 150, 250, 330):
        losses[start : start + 5] = [value + generator.uniform(1, 6) for value in losses[start : start + 5]]
    found, watch = watched(losses)
    expected = by_hand(losses)
    assert [spike.step - 1 for spike in found] == expected and expected
    assert watch.counts == {"0": len(expected)}


def test_three_high_steps_in_a_row_are_told_once_and_two_are_not():
    calm = noisy(100)
    assert watched([*calm, 9.0, 9.0, *calm])[0] == []
    (spike,) = watched([*calm, *[9.0] * 20, *calm])[0]
    assert (spike.module, spike.epoch, spike.step, spike.loss) == (1, 1, 103, 9.0)
    assert spike.median == pytest.approx(2.0, abs=0.05) and spike.median < spike.limit < 9.0
    assert str(spike).startswith("the total loss of module 1 leapt in epoch 1, step 103: 9, above ")
    assert len(watched([*calm, *[9.0] * 20, *calm, *[9.0] * 20])[0]) == 2


def test_a_new_level_is_an_old_one_after_some_time():
    losses = [*noisy(200), *noisy(400, level=8.0), *noisy(10, level=20.0)]
    found, _ = watched(losses)
    assert [spike.step for spike in found] == [203, 603]


@pytest.mark.parametrize(
    "shape",
    [
        lambda step, noise: 2.3 * math.exp(-step / 300) + 0.02 * math.exp(noise),
        lambda step, noise: 1 + min(step / 500, 1) + 0.1 * noise,  # a warm-up that goes wrong slowly
        lambda step, noise: (1.0 if step < 500 else 0.3) * (1 + 0.1 * noise),  # the rate falls
        lambda step, noise: 2 * (1 + 0.2 * (step // 50 % 2)) + 0.1 * noise,  # easier and harder epochs
        lambda step, noise: 5.0 if step in (300, 400, 401) else 1 + 0.1 * noise,  # a hard batch, and two
    ],
)
def test_ordinary_training_is_silent(shape):
    generator = random.Random(1)
    for _ in range(5):
        assert watched([shape(step, generator.gauss(0, 1)) for step in range(1000)])[0] == []


def test_what_a_checkpoint_keeps_is_all_there_is():
    losses = [*noisy(150), 9.0, 9.0, 9.0, *noisy(80), *[9.0] * 5]
    whole, _ = watched(losses)
    for cut in (0, 10, FEWEST, 130, 151, 152, 153, 200):
        first, watch = watched(losses[:cut])
        state = watch.state()
        second, rest = watched(losses[cut:], before=state, counts=watch.counts)
        assert [s.loss for s in first + second] == [s.loss for s in whole]
        assert [s.limit for s in first + second] == [s.limit for s in whole]
        assert rest.counts == {"0": len(whole)}


def run(local, data, *, epochs, **options):
    return train(
        local,
        data,
        optimizer=make_optimizer("sgd", local.parameters(), learning_rate=0.1, weight_decay=0.0),
        schedule=make_schedule("constant", base=0.01, epochs=epochs, warmup_epochs=0),
        epochs=epochs,
        batch_size=4,
        seed=3,
        device=torch.device("cpu"),
        **options,
    )


def spoil(local, *, first, module=1, by=1000.0):
    """From a step on (counted through from 0), five losses of one module are another size."""
    objective, count = local.stages[module].objective, iter(range(9999))
    real = objective.forward

    def forward(features, batch):
        step = next(count)
        factor = by if first <= step < first + 5 else 1.0
        return {name: loss * factor for name, loss in real(features, batch).items()}

    objective.forward = forward


@pytest.fixture
def soon(monkeypatch):
    """Few steps are enough to be compared with."""
    monkeypatch.setattr("infopro.training.spikes.FEWEST", 12)


def test_a_spike_of_a_module_is_told_and_counted(data, build, soon):
    local, found = build(objective=Greedy()), []
    spoil(local, first=STEPS + 5)
    records = run(local, data, epochs=2, on_spike=found.append, clip_gradients=0.01)
    (spike,) = found
    assert (spike.module, spike.epoch, spike.step) == (2, 2, 8)
    assert [record.extra for record in records] == [{}, {"loss_spikes": 1}]


def test_a_run_may_stop_for_it(data, build, soon):
    local, saved = build(objective=Greedy()), []
    spoil(local, first=STEPS + 5)
    with pytest.raises(Spiked, match=r"module 2 leapt in epoch 2, step 8: .* lower --learning-rate") as error:
        run(local, data, epochs=2, on_spike=stop_at_spikes, save=saved.append, clip_gradients=0.01)
    assert isinstance(error.value, Diverged)
    assert saved[-1].epoch == 1


def test_what_is_watched_is_kept_from_epoch_to_epoch(data, build):
    local, saved = build(objective=Greedy()), []
    run(local, data, epochs=2, save=saved.append)
    first, second = (position.sums for position in saved)
    assert first.losses == {} and first.count == 0, "an epoch's own sums are not kept"
    recent = second.watched["0"]["recent"]
    assert len(recent) == 2 * STEPS and recent[:STEPS] == first.watched["0"]["recent"]
