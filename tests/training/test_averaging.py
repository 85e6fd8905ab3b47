"""The average is torch's, beside a training that knows nothing of it, and it comes back with a checkpoint."""

import copy
from dataclasses import asdict

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from infopro.engines import OneProcess, Streaming
from infopro.errors import BadConfiguration, BadInput, BadRun
from infopro.objectives import Greedy
from infopro.training import (
    Checkpoint,
    WeightAverages,
    evaluate_data,
    load_checkpoint,
    load_local,
    load_model,
    make_optimizer,
    make_schedule,
    save_checkpoint,
    train,
)

CPU = torch.device("cpu")
EPOCHS, STEPS = 2, 3  # steps of an epoch: 40 images in batches of 16


def optimizer_of(local, name="sgd"):
    return make_optimizer(name, local.parameters(), learning_rate=0.1, weight_decay=1e-4)


def run(local, data, optimizer=None, **options):
    return train(
        local,
        data,
        optimizer=optimizer or optimizer_of(local),
        schedule=make_schedule("constant", base=0.05, epochs=EPOCHS, warmup_epochs=0),
        epochs=EPOCHS,
        batch_size=16,
        seed=3,
        device=CPU,
        **options,
    )


def same(left, right):
    assert left.keys() == right.keys()
    return [name for name in left if not torch.equal(left[name], right[name])] == []


def snapshot(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def numbers(records):
    clocks = ("seconds", "images_per_second")
    return [{n: v for n, v in asdict(record).items() if n not in clocks} for record in records]


def by_torch(model, decay):
    def move(averages, weights, done):
        now = min(decay, (1 + int(done)) / (10 + int(done)))
        get_ema_multi_avg_fn(now)(averages, weights, done)

    return AveragedModel(model, multi_avg_fn=move, use_buffers=True)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("decay", [0.3, 0.999])  # one is reached in the sixth step, one never
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_it_is_torchs_average_bit_for_bit(data, build, precision, decay, name):
    local = build()
    averages, reference = WeightAverages(local.model, decay=decay), by_torch(local.model, decay)
    run(
        local,
        data,
        optimizer_of(local, name),
        averages=averages,
        precision=precision,
        on_step=lambda *_: reference.update_parameters(local.model),
    )
    found, expected, weights = averages.state_dict(), reference.module.state_dict(), local.model.state_dict()
    assert averages.steps == EPOCHS * STEPS and found.keys() == weights.keys()
    for key, weight in weights.items():
        if weight.is_floating_point():
            assert torch.equal(found[key], expected[key]) and not torch.equal(found[key], weight), key
        else:  # numbers of batches: torch averages and truncates them
            assert torch.equal(found[key], weight) and int(weight) == EPOCHS * STEPS


def test_by_hand():
    network = nn.Linear(1, 1, bias=False)
    averages = WeightAverages(network, decay=0.5)
    found = []
    for value in (8.0, 0.0, 4.0, -100.0):
        network.weight.data.fill_(value)
        averages.update()
        found.append(float(averages.state_dict()["weight"]))
    # the first is copied; then 2/11, 3/12, 4/13 of the average stay
    expected = [8.0, 8 * 2 / 11]
    expected.append(expected[-1] / 4 + 4 * 3 / 4)
    expected.append(expected[-1] * 4 / 13 - 100 * 9 / 13)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_training_knows_nothing_of_it(data, build, precision):
    plain, averaged = build(), build()
    optimizers = optimizer_of(plain), optimizer_of(averaged)
    expected = run(plain, data, optimizers[0], precision=precision)
    averages = WeightAverages(averaged.model, decay=0.9)
    found = run(averaged, data, optimizers[1], precision=precision, averages=averages)
    assert same(plain.state_dict(), averaged.state_dict())
    for left, right in zip(plain.parameters(), averaged.parameters(), strict=True):
        assert same(optimizers[0].state[left], optimizers[1].state[right])
    for ours, theirs in zip(expected, found, strict=True):
        assert ours.losses == theirs.losses and ours.train_error == theirs.train_error
        assert ours.test_loss != theirs.test_loss, "the test is of another network"


def test_what_is_tested_is_the_average(data, build):
    local = build()
    averages = WeightAverages(local.model, decay=0.9)
    record = run(local, data, averages=averages)[-1]
    network = build(seed=5).model
    network.load_state_dict(averages.state_dict())
    assert record.test_loss == evaluate_data(network, local.task, data, device=CPU).loss


def saving(folder, local, optimizer, averages, saved):
    def save(position):
        state = Checkpoint(position.epoch, position.best_test_error, {}, position.step)
        path = save_checkpoint(folder, local, optimizer, state, averages=averages, keep=99)
        saved.append((position, path))

    return save


ASKED = range(
    1, EPOCHS * (STEPS + 4)
)  # two test batches; the end of training and of a test is asked for, too


@pytest.mark.parametrize(
    ("asked", "precision"),
    [*((asked, torch.float32) for asked in ASKED), (2, torch.bfloat16), (9, torch.bfloat16)],
)
def test_stopped_before_any_batch_it_goes_on_bit_for_bit(
    tmp_path, data, build, asked, precision, monkeypatch
):
    monkeypatch.setattr("infopro.training.reading.evaluation_batch", lambda *_: 10)
    whole = build()
    expected_averages = WeightAverages(whole.model, decay=0.3)
    optimizer = optimizer_of(whole)
    expected = run(whole, data, optimizer, averages=expected_averages, precision=precision)

    local, saved, count = build(), [], iter(range(999))
    averages, optimizers = WeightAverages(local.model, decay=0.3), [optimizer_of(local)]
    records = run(
        local,
        data,
        optimizers[0],
        averages=averages,
        precision=precision,
        engine=OneProcess(local, stop=lambda: next(count) >= asked),
        save=saving(tmp_path, local, optimizers[0], averages, saved),
    )
    position, path = saved[-1]
    local = build(seed=8)
    averages, optimizers = WeightAverages(local.model, decay=0.3), [optimizer_of(local)]
    load_checkpoint(path, local, optimizers[0], averages=averages)
    records += run(local, data, optimizers[0], averages=averages, start=position, precision=precision)

    assert numbers(records) == numbers(expected)
    assert same(whole.state_dict(), local.state_dict())
    assert averages.steps == expected_averages.steps
    assert same(averages.state_dict(), expected_averages.state_dict())


def test_a_step_that_is_left_out_does_not_count(data, build):
    local = build(objective=Greedy())
    averages, reference = WeightAverages(local.model, decay=0.9), by_torch(local.model, 0.9)
    objective, count = local.stages[1].objective, iter(range(99))
    real = objective.forward

    def forward(features, batch):
        bad = next(count) == 1
        return {n: loss * float("nan") if bad else loss for n, loss in real(features, batch).items()}

    objective.forward = forward
    kept = []

    def on_step(epoch, step):
        if (epoch, step) == (1, 2):
            kept.append(averages.steps)
        else:
            reference.update_parameters(local.model)

    (first, _) = run(local, data, averages=averages, on_divergence="skip", on_step=on_step)
    assert first.extra["skipped_steps"] == 1 and kept == [1] and averages.steps == EPOCHS * STEPS - 1
    expected = reference.module.state_dict()
    floating = {n: t for n, t in averages.state_dict().items() if t.is_floating_point()}
    assert same(floating, {name: expected[name] for name in floating})


@pytest.mark.parametrize("streaming", [False, True])
def test_engines_that_step_the_optimizer_are_averaged_alike(tmp_path, data, build, streaming):
    found = []
    for staged in (False, True):
        local = build()
        optimizer = optimizer_of(local)
        if not staged:
            engine = OneProcess(local)
        elif streaming:
            example = torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
            engine = Streaming(local, optimizer, example=example, device=CPU, directory=tmp_path)
        else:
            engine = OneProcess(local, optimizer=optimizer)
        averages = WeightAverages(local.model, decay=0.9)
        records = run(local, data, optimizer, engine=engine, averages=averages)
        found.append((numbers(records), averages.state_dict(), snapshot(local)))
    assert found[0][0] == found[1][0]
    assert same(found[0][1], found[1][1]) and same(found[0][2], found[1][2])


class Odd(nn.Module):
    """A weight with two names, a frozen one, a counter, and buffers of which one is not stored."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.second.weight = self.first.weight
        self.second.bias.requires_grad_(False)
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("kept", torch.zeros(2))
        self.register_buffer("passing", torch.zeros(2), persistent=False)
        self.register_parameter("absent", None)


def test_all_that_a_state_dict_holds_and_nothing_else():
    network = Odd()
    averages, frozen = WeightAverages(network, decay=0.5), network.second.bias.clone()
    for value in (1.0, 2.0):
        network.first.weight.data.fill_(value)
        network.count = torch.tensor(int(value))  # another tensor in its place
        network.kept.fill_(value)
        network.passing.fill_(value)
        averages.update()
    found, mean = averages.state_dict(), 1 * 2 / 11 + 2 * 9 / 11
    assert list(found) == list(network.state_dict())
    assert found["first.weight"] is found["second.weight"]
    assert found["first.weight"].flatten().tolist() == pytest.approx([mean] * 4)
    assert found["kept"].tolist() == pytest.approx([mean] * 2)
    assert int(found["count"]) == 2 and torch.equal(found["second.bias"], frozen)
    before = {**snapshot(network), "passing": network.passing.clone()}
    with averages.applied():
        assert network.first.weight.flatten().tolist() == pytest.approx([mean] * 4)
        assert network.first.weight is network.second.weight
        assert network.passing.tolist() == [2.0, 2.0]
    assert same(before, {**snapshot(network), "passing": network.passing})


def test_the_weights_come_back_whatever_happens_in_between(build):
    local = build()
    averages = WeightAverages(local.model, decay=0.9)
    with torch.no_grad():
        for parameter in local.parameters():
            parameter.add_(1.0)
    before, averaged = snapshot(local), copy.deepcopy(averages.state_dict())
    with pytest.raises(KeyError), averages.applied():
        assert not same(before, local.state_dict())
        raise KeyError
    assert same(before, local.state_dict()) and same(averaged, averages.state_dict())


def test_while_they_are_applied_nothing_else_is_done_with_them():
    network = nn.Linear(1, 1)
    averages = WeightAverages(network, decay=0.9)
    message = "the averaged weights are in the network's place; leave `with averages.applied"
    with averages.applied():
        for use in (averages.update, averages.state_dict, lambda: averages.load({}, steps=1)):
            with pytest.raises(BadInput, match=message):
                use()
        with pytest.raises(BadInput, match=message), averages.applied():
            pass
    averages.update()


@pytest.fixture
def stored(tmp_path, data, build):
    local = build()
    averages, optimizer, saved = WeightAverages(local.model, decay=0.9), optimizer_of(local), []
    run(
        local,
        data,
        optimizer,
        averages=averages,
        save=saving(tmp_path, local, optimizer, averages, saved),
    )
    return local, averages, saved[-1][1]


def test_who_loads_a_network_gets_the_average(stored, build):
    local, averages, path = stored
    other = build(seed=9)
    load_model(path, other.model)
    assert same(other.model.state_dict(), averages.state_dict())
    load_model(path, other.model, averaged=False)
    assert same(other.model.state_dict(), local.model.state_dict())
    load_local(path, other)
    assert same(other.model.state_dict(), averages.state_dict())
    assert same(other.heads.state_dict(), local.heads.state_dict())
    load_local(path, other, averaged=False)
    assert same(other.state_dict(), local.state_dict())


def test_a_checkpoint_without_them_gives_none(tmp_path, build):
    local, other = build(), build(seed=4)
    path = save_checkpoint(tmp_path, local, optimizer_of(local), Checkpoint(1, 50.0, {}))
    averages, optimizer, before = WeightAverages(other.model, decay=0.9), optimizer_of(other), snapshot(other)
    with pytest.raises(BadRun, match="has no averaged weights; go on without average_weights"):
        load_checkpoint(path, other, optimizer, averages=averages)
    assert same(before, other.state_dict())
    load_checkpoint(path, other, optimizer)
    load_model(path, other.model)
    assert same(local.state_dict(), other.state_dict())


def test_a_damaged_average_is_noticed(stored, build):
    _, _, path = stored
    file = path / "averages.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    other = build(seed=9)
    with pytest.raises(BadRun, match=r"averages\.safetensors is damaged or missing"):
        load_model(path, other.model)
    load_model(path, other.model, averaged=False)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, 1.1, float("nan")])
def test_a_decay_out_of_range(decay):
    with pytest.raises(BadConfiguration, match="decay of averaged weights is out of range: got"):
        WeightAverages(nn.Linear(1, 1), decay=decay)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_low_precision_are_refused(dtype):
    with pytest.raises(BadInput, match=f"rounded away: got weight of {dtype}; allowed: float32, float64"):
        WeightAverages(nn.Linear(2, 2, dtype=dtype), decay=0.9)


def test_averages_of_another_model_are_refused(data, build):
    local = build()
    with pytest.raises(BadInput, match="the averages are of another model"):
        run(local, data, averages=WeightAverages(build().model, decay=0.9))
