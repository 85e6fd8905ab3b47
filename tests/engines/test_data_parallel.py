"""Replicas of modules: along a pipeline, or of the whole network in one process each."""

from unittest import mock

import pytest
import torch
from torch import nn

import infopro
from infopro.data import Augmentation, ImageData, ImageTensors
from infopro.engines import Pipeline, joined
from infopro.objectives import from_name, list_objectives
from infopro.training import make_optimizer, make_schedule, train

CLASSES, SIDE = 3, 8
CPU = torch.device("cpu")


def images(size, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % CLASSES
    pixels = torch.randint(100, (size, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    pixels[torch.arange(size), labels] += 30
    return ImageTensors(pixels, labels)


def colours():
    """Batches of 12 and a last one of 7, whose shares are unequal."""
    return ImageData(
        name="colours",
        train=images(31, 0),
        test=images(9, 1),
        num_classes=CLASSES,
        class_names=("red", "green", "blue"),
        mean=(0.3, 0.3, 0.3),
        std=(0.2, 0.2, 0.2),
        image_shape=(3, SIDE, SIDE),
        augmentation=Augmentation(crop_padding=1, flip=True),
    )


def build(objective):
    torch.manual_seed(0)
    blocks = [
        nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())
        for i, o in ((3, 4), (4, 6), (6, 6))
    ]
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES))
    modules = {} if objective == "end-to-end" else {"num_modules": 2, "balance": "depth"}
    modules = modules or {"num_modules": 1}
    return infopro.localize(
        model.double().to(memory_format=torch.channels_last),
        example(),
        objective=from_name(objective),
        task=infopro.tasks.Classification(num_classes=CLASSES, mean=(0.3,) * 3, std=(0.2,) * 3).double(),
        **modules,
    )


def example():
    return torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64).contiguous(memory_format=torch.channels_last)


def run(local, engine=None):
    parameters = local.parameters() if engine is None else engine.parameters()
    optimizer = make_optimizer("sgd", parameters, learning_rate=0.1, weight_decay=1e-4)
    return train(
        local,
        colours(),
        optimizer=optimizer,
        schedule=make_schedule("cosine", base=0.05, epochs=2, warmup_epochs=1),
        epochs=2,
        batch_size=12,
        seed=3,
        device=CPU,
        engine=engine,
    )


def train_replicas(objective, num_stages, synchronise, gather):
    patched = mock.patch("infopro.training.reading.channels_last", in_double)
    with patched, joined(num_stages=num_stages, device=CPU, timeout_seconds=60) as processes:
        local = build(objective)
        engine = Pipeline(local, processes, example=example(), synchronise=synchronise, gather=gather)
        records = run(local, engine)
        engine.finish()
        found = {n: t.clone() for n, t in local.state_dict().items() if not t.is_meta}
        return [(r.losses, r.train_error, r.test_error) for r in records], found


def in_double(found):
    """What differs then, differs for another reason than rounding."""
    for pixels, targets in found:
        yield pixels.double().contiguous(memory_format=torch.channels_last), targets


@pytest.fixture
def one(monkeypatch):
    """The same run in one process."""
    monkeypatch.setattr("infopro.training.reading.channels_last", in_double)

    def make(objective):
        local = build(objective)
        records = run(local)
        return [(r.losses, r.train_error, r.test_error) for r in records], local.state_dict()

    return make


@pytest.mark.parametrize("objective", list_objectives())
def test_two_replicas_train_like_one_process(crew, one, objective):
    records, expected = one(objective)
    first, second = crew(2, train_replicas, objective, None, True, True)
    compare(records, first[0])
    for name, value in expected.items():
        assert torch.equal(first[1][name], second[1][name]), f"{name} differs between the replicas"
        torch.testing.assert_close(first[1][name], value, rtol=1e-9, atol=1e-11, msg=name)
    assert second[0] == []


def compare(expected, found):
    assert len(found) == len(expected) == 2
    for (losses, *errors), (other_losses, *other_errors) in zip(expected, found, strict=True):
        assert errors == other_errors
        for mine, theirs in zip(losses, other_losses, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-9)


def test_two_modules_with_two_replicas_each_train_like_one_process(crew, one):
    records, expected = one("infopro-contrast")
    results = crew(4, train_replicas, "infopro-contrast", 2, True, True)
    compare(records, results[2][0])
    for pair in (results[:2], results[2:]):
        for name in pair[0][1]:
            assert torch.equal(pair[0][1][name], pair[1][1][name]), name
            torch.testing.assert_close(pair[0][1][name], expected[name], rtol=1e-9, atol=1e-11, msg=name)
    assert results[0][1].keys() | results[2][1].keys() == expected.keys()


def test_without_synchronised_batch_norm_the_result_is_another_and_still_the_same_on_all(crew, one):
    _, expected = one("greedy")
    first, second = crew(2, train_replicas, "greedy", None, False, False)
    assert all(torch.equal(first[1][name], second[1][name]) for name in expected)
    assert not torch.allclose(first[1]["model.0.0.weight"], expected["model.0.0.weight"])


def train_shards(num_stages, folder, resume_from):
    from infopro.training import Checkpoint, load_checkpoint, publish, take_part, write_shard

    with joined(num_stages=num_stages, device=CPU, timeout_seconds=60) as processes:
        local = build("infopro-softmax")
        engine = Pipeline(local, processes, example=example(), synchronise=True, shard=True)
        optimizer = make_optimizer("adamw", engine.parameters(), learning_rate=0.01, weight_decay=1e-4)
        if resume_from is not None:
            load_checkpoint(resume_from, local, optimizer)
        run_one_epoch(local, optimizer, engine)
        state, names = Checkpoint(1, 100.0, {}), engine.names()
        held = sum(p.to_local().numel() for p in engine.parameters())
        if engine.replica == 0:
            name = f"{processes.stage + 1}-of-{num_stages}"
            shards = engine.gather(write_shard(folder, local, optimizer, state, shard=name, names=names))
        else:
            take_part(local, optimizer, names=names)
            shards = engine.gather(None)
        if shards is not None:
            publish(folder, state, shards)
        engine.finish()
        return held, sum(p.numel() for p in engine.parameters())


def run_one_epoch(local, optimizer, engine=None):
    with mock.patch("infopro.training.reading.channels_last", in_double):
        train(
            local,
            colours(),
            optimizer=optimizer,
            schedule=make_schedule("constant", base=0.01, epochs=1, warmup_epochs=0),
            epochs=1,
            batch_size=12,
            seed=3,
            device=CPU,
            engine=engine,
        )


def test_shards_train_like_one_process_and_its_checkpoints_are_interchangeable(crew, tmp_path):
    from infopro.training import Checkpoint, checkpoints, load_checkpoint, save_checkpoint

    one = build("infopro-softmax")
    optimizer = make_optimizer("adamw", one.parameters(), learning_rate=0.01, weight_decay=1e-4)
    run_one_epoch(one, optimizer)
    first = save_checkpoint(tmp_path / "one", one, optimizer, Checkpoint(1, 100.0, {}))
    run_one_epoch(one, optimizer)
    results = crew(4, train_shards, 2, tmp_path / "shards", first)
    for held, whole in results:
        assert held < 0.7 * whole
    found = build("infopro-softmax")
    other = make_optimizer("adamw", found.parameters(), learning_rate=0.01, weight_decay=1e-4)
    load_checkpoint(checkpoints(tmp_path / "shards")[-1], found, other)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-8, atol=1e-10, msg=name)
    for mine, theirs in zip(one.parameters(), found.parameters(), strict=True):
        for key, value in optimizer.state[mine].items():
            torch.testing.assert_close(other.state[theirs][key], value, rtol=1e-8, atol=1e-10, msg=key)
