"""Averaged weights of processes that share the work: those of one process, in files that all of them read."""

from dataclasses import asdict
from unittest import mock

import pytest
import torch
from torch import nn

import infopro
from infopro.data import Augmentation, ImageData, ImageTensors
from infopro.engines import Pipeline, joined
from infopro.objectives import from_name
from infopro.training import (
    Checkpoint,
    WeightAverages,
    checkpoints,
    load_checkpoint,
    load_model,
    make_optimizer,
    make_schedule,
    publish,
    save_checkpoint,
    take_part,
    train,
    write_shard,
)

CLASSES, SIDE, EPOCHS = 3, 8, 2
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


def build(dtype, seed=0):
    torch.manual_seed(seed)
    blocks = [
        nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())
        for i, o in ((3, 4), (4, 6), (6, 6))
    ]
    model = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES))
    return infopro.localize(
        model.to(dtype).to(memory_format=torch.channels_last),
        example(dtype),
        num_modules=2,
        balance="depth",
        objective=from_name("infopro-softmax"),
        task=infopro.tasks.Classification(num_classes=CLASSES, mean=(0.3,) * 3, std=(0.2,) * 3).to(dtype),
    )


def example(dtype):
    return torch.rand(2, 3, SIDE, SIDE, dtype=dtype).contiguous(memory_format=torch.channels_last)


def optimizer_of(parameters):
    return make_optimizer("sgd", list(parameters), learning_rate=0.01, weight_decay=1e-4)


def fit(local, optimizer, averages, dtype, **options):
    def cast(found):
        for pixels, targets in found:
            yield pixels.to(dtype).contiguous(memory_format=torch.channels_last), targets

    with mock.patch("infopro.training.reading.channels_last", cast):
        return train(
            local,
            colours(),
            optimizer=optimizer,
            schedule=make_schedule("constant", base=0.05, epochs=EPOCHS, warmup_epochs=0),
            epochs=EPOCHS,
            batch_size=12,
            seed=3,
            device=CPU,
            averages=averages,
            **options,
        )


def alone(dtype, folder, **options):
    local = build(dtype)
    optimizer, averages = optimizer_of(local.parameters()), WeightAverages(local.model, decay=0.4)
    records = fit(local, optimizer, averages, dtype, **options)
    path = save_checkpoint(folder, local, optimizer, Checkpoint(EPOCHS, 0.0, {}), averages=averages)
    return numbers(records), path


def numbers(records):
    clocks = ("seconds", "images_per_second")
    return [{n: v for n, v in asdict(record).items() if n not in clocks} for record in records]


def together(num_stages, dtype, folder, resume_from, options, training):
    """One of the processes: trains, resumed where that is asked for, and writes its part of a checkpoint."""
    with joined(num_stages=num_stages, device=CPU, timeout_seconds=60) as processes:
        local = build(dtype, seed=0 if resume_from is None else 6)
        engine = Pipeline(local, processes, example=example(dtype), **options)
        optimizer, averages = optimizer_of(engine.parameters()), WeightAverages(local.model, decay=0.4)
        if resume_from is not None:
            load_checkpoint(resume_from, local, optimizer, averages=averages)
        records = fit(local, optimizer, averages, dtype, engine=engine, **training)
        shard, kept = None, {"averages": averages, "names": engine.names()}
        if engine.replica == 0:
            name = f"{processes.stage + 1}-of-{num_stages}"
            shard = write_shard(folder, local, optimizer, Checkpoint(EPOCHS, 0.0, {}), shard=name, **kept)
        else:
            take_part(local, optimizer, **kept)
        shards = engine.gather(shard)
        if shards is not None:
            publish(folder, Checkpoint(EPOCHS, 0.0, {}), shards)
        engine.finish()
        own = {n: t.clone() for n, t in averages.state_dict().items() if not hasattr(t, "to_local")}
        return numbers(records), own, averages.steps


def averages_in(path, dtype):
    network = build(dtype, seed=5).model
    load_model(path, network)
    return network.state_dict()


def test_a_pipeline_averages_what_one_process_averages_bit_for_bit(crew, tmp_path):
    expected, path = alone(torch.float32, tmp_path / "one")
    first, last = crew(2, together, 2, torch.float32, tmp_path / "two", None, {}, {})
    assert last[0] == expected and first[0] == []
    assert first[2] == last[2] == 6
    assert not first[1].keys() & last[1].keys()
    whole, found = (
        averages_in(path, torch.float32),
        averages_in(checkpoints(tmp_path / "two")[0], torch.float32),
    )
    assert all(torch.equal(whole[name], found[name]) for name in whole)
    assert all(torch.equal(whole[name], tensor) for name, tensor in (first[1] | last[1]).items())


def test_what_one_process_began_a_pipeline_ends_bit_for_bit(crew, tmp_path):
    _, path = alone(torch.float32, tmp_path / "whole")
    saved = []

    def save(position):
        if position.epoch == 1:
            state = Checkpoint(1, position.best_test_error, {})
            saved.append(
                (save_checkpoint(tmp_path / "one", local, optimizer, state, averages=averages), position)
            )

    local = build(torch.float32)
    optimizer, averages = optimizer_of(local.parameters()), WeightAverages(local.model, decay=0.4)
    fit(local, optimizer, averages, torch.float32, save=save)
    (begun, start), folder = saved[0], tmp_path / "two"
    crew(2, together, 2, torch.float32, folder, begun, {}, {"start": start})
    whole, found = averages_in(path, torch.float32), averages_in(checkpoints(folder)[0], torch.float32)
    assert all(torch.equal(whole[name], found[name]) for name in whole)


@pytest.mark.parametrize("shard", [False, True])
def test_replicas_of_modules_average_what_one_process_averages(crew, tmp_path, shard):
    """In float64: what differs then, differs for another reason than rounding."""
    expected, path = alone(torch.float64, tmp_path / "one")
    options = {"synchronise": True, "shard": shard}
    results = crew(4, together, 2, torch.float64, tmp_path / "four", None, options, {})
    assert [r["test_error"] for r in results[2][0]] == [r["test_error"] for r in expected]
    assert results[2][0][-1]["test_loss"] == pytest.approx(expected[-1]["test_loss"], rel=1e-9)
    whole, found = (
        averages_in(path, torch.float64),
        averages_in(checkpoints(tmp_path / "four")[0], torch.float64),
    )
    for name in whole:
        torch.testing.assert_close(found[name], whole[name], rtol=1e-8, atol=1e-10, msg=name)


def test_averaged_statistics_of_different_shares_become_one(crew, tmp_path):
    """Without synchronised BatchNorm each replica has seen its own images."""
    first, second = crew(2, together, None, torch.float64, tmp_path / "two", None, {}, {})
    assert any("running_mean" in name for name in first[1])
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])
