"""Modules at their own pace: nobody waits for a slow one, old batches are used again, the network learns."""

import copy
import io
import json
import os
import signal
import threading
import time
from contextlib import redirect_stdout
from dataclasses import replace
from statistics import median
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

import infopro
from infopro.data import ImageData, ImageTensors
from infopro.engines import Decoupled, joined
from infopro.engines.decoupled import Freshness, _Outbox
from infopro.errors import NotYetSupported, StageLost
from infopro.objectives import from_name
from infopro.training import make_optimizer, make_schedule, train_decoupled

CLASSES, SIDE, BATCH = 3, 8, 16
CPU = torch.device("cpu")
SLOW = 0.03  # seconds that a slow module's step takes longer


def images(size, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % CLASSES
    pixels = torch.randint(100, (size, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    pixels[torch.arange(size), labels] += 100  # the class is the brightest colour
    return ImageTensors(pixels, labels)


def colours():
    """90 images in batches of 16: the last one has 10."""
    return ImageData(
        name="colours",
        train=images(90, 0),
        test=images(60, 1),
        num_classes=CLASSES,
        class_names=("red", "green", "blue"),
        mean=(0.3, 0.3, 0.3),
        std=(0.2, 0.2, 0.2),
        image_shape=(3, SIDE, SIDE),
        augmentation=None,
    )


def example():
    return torch.rand(2, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)


def block(in_channels, channels):
    """Writes in place on what the module before has sent."""
    convolution = nn.Conv2d(in_channels, channels, 3, padding=1)
    return nn.Sequential(nn.ReLU(inplace=True), convolution, nn.BatchNorm2d(channels))


def build():
    torch.manual_seed(0)
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES)]
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), block(8, 8), block(8, 8), *tail)
    return infopro.localize(
        model.to(memory_format=torch.channels_last),
        example(),
        cuts=["0", "1"],
        objective=from_name("infopro-softmax"),
        task=infopro.tasks.Classification(num_classes=CLASSES, mean=(0.3,) * 3, std=(0.2,) * 3),
    )


def optimizer_of(engine):
    return make_optimizer("sgd", engine.parameters(), learning_rate=0.05, weight_decay=0.0)


def run(engine, *, epochs, **options):
    return train_decoupled(
        engine,
        colours(),
        optimizer=optimizer_of(engine),
        schedule=make_schedule("constant", base=0.05, epochs=epochs, warmup_epochs=0),
        epochs=epochs,
        batch_size=BATCH,
        seed=3,
        device=CPU,
        **options,
    )


def train_at_different_paces(slow, epochs):
    with joined(num_stages=3, device=CPU, timeout_seconds=60) as processes:
        local = build()
        before = {name: p.detach().clone() for name, p in local.named_parameters()}
        engine = Decoupled(local, processes, example=example(), replay=4)
        if processes.stage == slow:
            local.stages[slow].part.register_forward_pre_hook(pause)
        own, saved = [], []
        records = run(engine, epochs=epochs, on_module_epoch=own.append, save=saved.append)
        engine.finish()
        unchanged = [
            name
            for name, p in local.named_parameters()
            if not p.is_meta and p.requires_grad and torch.equal(p, before[name])
        ]
        return records, own, unchanged, saved, len(engine.parameters())


def pause(module, inputs):
    if module.training:
        time.sleep(SLOW)


@pytest.fixture(scope="module", params=[0, 1, 2], ids=lambda slow: f"module {slow + 1} is slow")
def paced(crew, request):
    """Each of the three modules is the slow one once."""
    return request.param, crew(3, train_at_different_paces, request.param, 12)


def test_the_network_learns(paced):
    """Two of three classes wrong would be chance.

    A module that has finished never sees what an earlier, slower one becomes afterwards: the network as a
    whole need then not be better than chance, though each module has learnt from what it got.
    """
    slow, results = paced
    *others, (record,) = [result[0] for result in results]
    assert others == [[], []]
    assert record.epoch == 12
    assert 0.0 <= record.train_error < 50.0
    if slow == 2:  # it has learnt from the final features of all others
        assert record.test_error < 45.0
    assert [sorted(losses) for losses in record.losses] == [
        ["reconstruction", "task", "total"],
        ["reconstruction", "task", "total"],
        ["task", "total"],
    ]


def test_nobody_waits_for_the_slow_module(paced):
    slow, results = paced
    seconds = [median(record.seconds for record in result[1]) for result in results]
    assert seconds[slow] > 6 * SLOW
    # what it is slowed down by is not in the others' time, however busy the machine is
    assert all(found + 3 * SLOW < seconds[slow] for stage, found in enumerate(seconds) if stage != slow), (
        seconds
    )


def test_every_weight_of_every_module_changes(paced):
    for _, _, unchanged, _, number in paced[1]:
        assert unchanged == [] and number > 0


def test_every_epoch_of_every_module_is_reported_and_the_end_is_saved(paced):
    for stage, (_, own, _, saved, _) in enumerate(paced[1]):
        assert [record.epoch for record in own] == [*range(1, 13)]
        assert {record.module for record in own} == {stage + 1}
        assert own[-1].losses["total"] < own[0].losses["total"]
        assert [position.epoch for position in saved] == [12]


def test_staleness_and_uses_tell_who_was_slow(paced):
    slow, results = paced
    fresh = [[record.freshness for record in result[1]] for result in results]
    # module 1 reads images: they are neither stale nor used again
    assert all(found.mean_staleness == found.mean_uses == found.unread == 0 for found in fresh[0])
    assert all(found.unsent == 0 for found in fresh[2])
    for found in [*fresh[1], *fresh[2]]:
        assert 0 <= found.mean_staleness <= found.most_staleness
        assert found.mean_uses >= 1
    uses = [sum(found.mean_uses for found in stage) / len(stage) for stage in fresh]
    if slow < 2:  # the next module had to use its batches again, for want of new ones
        assert uses[slow + 1] > 1.3
    if slow > 0:  # it had more new ones than it could read
        assert sum(f.unread for f in fresh[slow]) + sum(f.unsent for f in fresh[slow - 1]) > 0


def draw_again_and_again(number):
    with joined(num_stages=3, device=CPU, timeout_seconds=60) as processes:
        local = build()
        engine = Decoupled(local, processes, example=example(), replay=2)
        found = []
        if processes.stage == 0:
            phase, batch = one_batch()
            for work in engine.feed(phase, lambda: iter([batch])):
                engine.backward(work, seed=0)
        elif processes.stage == 1:
            phase, _ = one_batch(steps=number)
            for work in engine.feed(phase, lambda: iter([])):
                (features,) = work.flow.values.values()
                before = features.clone()
                out = engine.backward(work, seed=0)
                found.append((before, features.clone(), float(out.losses[0]["total"])))
                engine.local.zero_grad()
        processes.wait_for_all("drawn")
        engine.finish_training(0)
        return found, engine.freshness()


def one_batch(steps=1):
    from infopro.engines import Phase

    pixels, labels = images(BATCH, 5).images, images(BATCH, 5).labels
    batch = (pixels / 255 - 0.3) / 0.2
    return Phase(1, True, (BATCH,) * steps, (BATCH,) * steps), (
        batch.contiguous(memory_format=torch.channels_last),
        labels,
    )


def test_a_batch_is_used_again_as_it_came_though_its_module_writes_in_place(crew):
    _, (found, freshness), _ = crew(3, draw_again_and_again, 5)
    features = [before for before, _, _ in found]
    assert (features[0] < 0).any()
    assert all((after >= 0).all() for _, after, _ in found), "ReLU did not write in place"
    assert all(torch.equal(features[0], again) for again in features[1:])
    assert len({loss for *_, loss in found}) == 1
    # how many of its five messages found no room depends on how quickly the outbox's thread sends
    assert 0 <= freshness.unsent < 5
    assert replace(freshness, unsent=0) == Freshness(0.0, 0, 3.0, 0, 0)


class Blocked:
    """A sender that sends when it is allowed to."""

    def __init__(self):
        self.begun, self.allowed, self.sent = threading.Event(), threading.Event(), []

    def send(self, header, tensors):
        self.begun.set()
        assert self.allowed.wait(60)
        self.sent.append(header)

    def stop(self, header):
        self.sent.append("stop")

    def drain(self):
        pass


def test_an_outbox_takes_one_message_beside_the_one_being_sent_and_sends_them_in_order():
    sender = Blocked()
    outbox = _Outbox(sender)
    assert outbox.offer(("first", []), patient=False)
    assert sender.begun.wait(60)
    assert outbox.offer(("second", []), patient=False)
    assert not outbox.offer(("no room", []), patient=False)
    assert not outbox.offer(("no room", []), patient=True)
    sender.allowed.set()
    outbox.close()
    assert sender.sent == ["first", "second", "stop"]


def draw_from_two(number):
    """Module 1 steps once between two batches, which module 2 draws from when both have come."""
    with joined(num_stages=3, device=CPU, timeout_seconds=60) as processes:
        engine = Decoupled(build(), processes, example=example(), replay=2)
        if processes.stage == 0:
            phase, batch = one_batch(steps=2)
            for work in engine.feed(phase, lambda: iter([batch, batch])):
                engine.backward(work, seed=0)
                engine.count_update()
                time.sleep(0.5)
        processes.wait_for_all("sent")
        if processes.stage == 1:
            phase, _ = one_batch(steps=number)
            for work in engine.feed(phase, lambda: iter([])):
                engine.backward(work, seed=0)
        engine.finish_training(0)
        return engine.freshness(), engine.freshness()


def test_staleness_is_counted_in_updates_of_the_module_before(crew):
    _, fresh, _ = crew(3, draw_from_two, 4)
    counted = replace(fresh[0], unsent=0)  # how many found no room depends on the outbox's thread
    assert (counted, fresh[1]) == (Freshness(0.5, 1, 1.5, 0, 0), Freshness(0.0, 0, 0.0, 0, 0))


def learn_from_another_size():
    """Steps 1 and 2 of the epoch have 4 and 12 images; both draw the one batch of 16 that there is."""
    from infopro.engines import Phase

    with joined(num_stages=3, device=CPU, timeout_seconds=60) as processes:
        local = build()
        alone = copy.deepcopy(local)
        engine = Decoupled(local, processes, example=example())
        phase, batch = one_batch()
        found = []
        if processes.stage == 0:
            for work in engine.feed(phase, lambda: iter([batch])):
                engine.backward(work, seed=0)
        elif processes.stage == 1:
            for work in engine.feed(Phase(1, True, (4, 12), (4, 12)), lambda: iter([])):
                local.zero_grad()
                engine.backward(work, seed=0)
                found.append([p.grad.clone() for p in engine.parameters()])
                assert work.total == work.size == BATCH
            alone.train()
            alone.backward(*batch, seed=0)
            named = dict(alone.named_parameters())
            found.append([named[n].grad for n, _ in local.named_parameters() if n in engine.names()])
        processes.wait_for_all("learnt")
        engine.finish_training(0)
        return found


def test_a_batch_of_another_size_than_the_steps_has_its_own_gradient(crew):
    _, (small, large, expected), _ = crew(3, learn_from_another_size)
    for one, other, whole in zip(small, large, expected, strict=True):
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(one, whole)


def stop_at_different_epochs():
    """Module 1 has finished and serves the others when module 3, the slowest, is asked to stop."""
    with joined(num_stages=3, device=CPU, timeout_seconds=60) as processes:
        wanted = threading.Event()
        engine = Decoupled(
            build(), processes, example=example(), stop=lambda: wanted.is_set() or processes.is_told("stop")
        )
        if processes.stage == 2:
            engine.local.stages[2].part.register_forward_pre_hook(pause)

        def on_epoch(record):
            if record.module == 1 and record.epoch == 6:
                processes.tell("stop")

        saved, own = [], []
        records = run(
            engine,
            epochs=6,
            on_module_epoch=lambda record: (own.append(record.epoch), on_epoch(record)),
            save=saved.append,
        )
        engine.finish()
        return records, own, saved, engine.stopped


def test_a_stop_ends_all_of_them_and_they_save_the_same_epoch(crew):
    results = crew(3, stop_at_different_epochs)
    assert results[0][1] == [*range(1, 7)]
    least = min(len(own) for _, own, _, _ in results)
    assert least < 6
    for records, _, saved, stopped in results:
        assert records == [] and stopped
        assert [position.epoch for position in saved] == [least]


def stop_before_the_first_batch():
    """Module 2 has been asked whether to stop, and waits for a batch when module 1 is stopped without one."""
    with joined(num_stages=3, device=CPU, timeout_seconds=60) as processes:
        asked = []

        def stop():
            asked.append(None)
            if processes.stage == 0:
                processes.store.get("module 2 was asked")
                processes.tell("stop")
            told = processes.is_told("stop") and (processes.stage == 0 or len(asked) > 1)
            if processes.stage == 1:
                processes.store.set("module 2 was asked", "")
            return told

        engine, saved = Decoupled(build(), processes, example=example(), stop=stop), []
        records = run(engine, epochs=1, save=saved.append)
        engine.finish()
        return records, [position.epoch for position in saved], engine.stopped


def test_a_run_that_is_stopped_before_its_first_batch_has_trained_nothing(crew):
    assert crew(3, stop_before_the_first_batch) == [([], [0], True)] * 3


def go_on_after_the_last_epoch():
    with joined(num_stages=3, device=CPU, timeout_seconds=60) as processes:
        engine = Decoupled(build(), processes, example=example())
        saved = []
        records = run(engine, epochs=2, first_epoch=3, save=saved.append)
        engine.finish()
        return records, saved, engine.stopped


def test_a_run_that_has_finished_has_nothing_to_do(crew):
    assert crew(3, go_on_after_the_last_epoch) == [([], [], False)] * 3


def wait_for_the_slowest():
    """Module 1 and 2 are done long before module 3, by more than the timeout."""
    with joined(num_stages=3, device=CPU, timeout_seconds=2) as processes:
        engine = Decoupled(build(), processes, example=example())
        if processes.stage == 2:
            for _ in range(8):
                time.sleep(0.5)
        engine.finish_training(1)
        return [str(value) for value in (engine.gather(processes.rank) or [])]


def test_at_the_end_the_slowest_may_take_longer_than_the_timeout(crew):
    *_, last = crew(3, wait_for_the_slowest)
    assert last == ["0", "1", "2"]


def lose_the_module_before():
    with joined(num_stages=3, device=CPU, timeout_seconds=2) as processes:
        engine = Decoupled(build(), processes, example=example())
        phase, batch = one_batch()
        if processes.stage == 0:
            for work in engine.feed(phase, lambda: iter([batch])):
                engine.backward(work, seed=0)
        elif processes.stage == 1:
            begun = time.monotonic()
            with pytest.raises(StageLost) as error:
                phase, _ = one_batch(steps=10**4)
                for work in engine.feed(phase, lambda: iter([])):
                    engine.backward(work, seed=0)
                    time.sleep(0.01)
            processes.tell("found")
            return str(error.value), time.monotonic() - begun
        end = time.monotonic() + 20
        while not processes.is_told("found") and time.monotonic() < end:
            time.sleep(0.05)
        return None


def test_a_module_before_that_gives_nothing_more_is_reported_though_there_are_old_batches(crew):
    _, (message, waited), _ = crew(3, lose_the_module_before)
    assert message.startswith("module ") and "\n" not in message
    assert waited < 10


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "colours.npz"
    train, test = images(60, 0), images(21, 1)
    np.savez(
        path,
        train_images=train.images.permute(0, 2, 3, 1).numpy(),
        train_labels=train.labels.numpy(),
        test_images=test.images.permute(0, 2, 3, 1).numpy(),
        test_labels=test.labels.numpy(),
    )
    return path


def command_line(file, run, stop_after, *options):
    """`infopro train` in this process; module 1 gets a signal after its epoch `stop_after`."""
    from infopro import train_command
    from infopro.cli import main

    def note(lines, record):
        if (record.module, record.epoch) == (1, stop_after):
            os.kill(os.getpid(), signal.SIGTERM)

    arguments = (
        f"train --data {file} --model cifar_resnet20 --num-modules 3 --objective dgl --epochs 3"
        f" --batch-size 16 --learning-rate 0.05 --output {run} --device cpu --parallel decoupled"
    )
    printed = io.StringIO()
    with mock.patch.object(train_command._Lines, "decoupled_epoch", note), redirect_stdout(printed):
        return main([*arguments.split(), *options]), printed.getvalue()


def epochs_of(run):
    files = [run / f"module-{module}.jsonl" for module in (1, 2, 3)]
    texts = [file.read_text() if file.exists() else "" for file in files]
    return [[json.loads(line)["epoch"] for line in text.splitlines()] for text in texts]


def test_a_decoupled_run_is_stopped_goes_on_to_its_end_and_then_has_nothing_to_do(crew, file, tmp_path):
    run = tmp_path / "run"
    results = crew(3, command_line, file, run, 1)
    assert [status for status, _ in results] == [143] * 3
    assert "stopped; a checkpoint is in" in results[2][1]
    assert epochs_of(run)[0] == [1]
    least = min(len(epochs) for epochs in epochs_of(run))
    (saved,) = (run / "checkpoints").iterdir()
    assert saved.name == f"epoch-{least:04d}"
    assert not (run / "log.jsonl").exists()
    for _ in range(2):
        results = crew(3, command_line, file, run, None, "--resume")
        assert [status for status, _ in results] == [0] * 3
        assert epochs_of(run) == [[1, 2, 3]] * 3
        (record,) = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert f"test error {record['test_error']:.2f} % after the last epoch" in results[2][1]


def with_replicas():
    with joined(num_stages=1, device=CPU, timeout_seconds=20) as processes:
        Decoupled(build(), processes, example=example())


def test_replicas_are_refused(crew):
    found = crew(2, with_replicas, failures=True)
    assert {type(error).__name__ for error in found} == {"NotYetSupported", "AlreadyTold"}
    assert "a decoupled run has one process per module: got 2 processes for each" in str(found[0])
    assert issubclass(NotYetSupported, ValueError)
