"""Messages from one process to the next: their order and content, whose memory they use, and who waits."""

import time
from contextlib import contextmanager, nullcontext

import pytest
import torch

from infopro.engines import joined
from infopro.engines.channel import Header, Receiver, Sender
from infopro.engines.replica_groups import new_group
from infopro.errors import StageLost

CPU = torch.device("cpu")
SECONDS = 30


class Watcher:
    def __init__(self, processes):
        self.explain, self.explain_gone = processes.signs.explain, processes.signs.explain_gone

    def span(self, kind, step=None):
        return nullcontext()


@contextmanager
def line(number, *, depth, seconds=SECONDS):
    """The processes, and this one's connections to those before and after it."""
    with joined(num_stages=number, device=CPU, timeout_seconds=seconds) as processes:
        before = after = None
        for near in range(number - 1):
            group = new_group([near, near + 1], processes)
            if processes.rank == near:
                after = Sender(group, near + 1, depth=depth, watcher=Watcher(processes))
            if processes.rank == near + 1:
                before = Receiver(group, near, depth=depth, watcher=Watcher(processes), device=CPU)
        yield processes, before, after


def content(header, *, turned=False):
    """Tensors that tell which message they are of."""
    features = torch.arange(12.0 * header.size).view(header.size, 3, 2, 2) + 1000 * header.step + header.epoch
    if turned or not header.training:  # a layout of their own
        features = features.contiguous(memory_format=torch.channels_last)
    mask = features[:, 0, 0, 0] > 3
    return [torch.arange(header.size), features, mask, features[0], torch.empty(0)]


def headers(epoch, training, *sizes):
    return [Header(training, epoch, step, size) for step, size in enumerate(sizes)]


PHASES = [
    headers(1, True, 4, 4, 6, 4, 4, 2, 6, 6, 4),  # a size that was seen follows one that was not
    headers(1, False, 6, 5),
    headers(2, True, 4, 2, 4, 4, 3),
    headers(2, False, 6, 5),
]


def pass_messages(depth):
    with line(2, depth=depth) as (_, before, after):
        for number, phase in enumerate(PHASES):
            if after is not None:
                for header in phase:
                    after.send(header, content(header))
                after.send_value({"epoch": number, "losses": [0.5, {"total": 1.0}]})
                continue
            for header, (found, tensors) in zip(phase, before.stream(phase), strict=True):
                assert found == header
                for expected, tensor in zip(content(header), tensors, strict=True):
                    assert tensor.dtype == expected.dtype and tensor.stride() == expected.stride()
                    assert torch.equal(tensor, expected)
                features, row = tensors[1], tensors[3]
                row.fill_(-1.0)
                assert (features[0] == -1.0).all()
            assert before.receive_value() == {"epoch": number, "losses": [0.5, {"total": 1.0}]}
        if after is not None:
            after.drain()
            return after.bytes_sent
        return None


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_messages_of_changing_sizes_and_kinds_arrive_in_order_with_values_in_between(crew, depth):
    sent, _ = crew(2, pass_messages, depth)
    everything = [header for phase in PHASES for header in phase]
    tensors = sum(t.nbytes for header in everything for t in content(header)[:3])
    assert sent > tensors + 5 * 8 * len(everything)  # headers
    assert sent < tensors + 5 * 8 * len(everything) + 10_000  # layouts, one per kind, and values


def pass_other_layouts():
    one_kind = headers(1, True, 4, 4, 4, 4)
    with line(2, depth=2) as (_, before, after):
        if after is not None:
            weight = torch.tensor(1.0, requires_grad=True)
            for header in one_kind:
                labels, features, *_ = content(header, turned=header.step % 2 == 1)
                after.send(header, [labels, features * weight])
            after.drain()
            return []
        return [[t.clone() for t in tensors] for _, tensors in before.stream(one_kind)]


def test_a_later_message_that_lies_otherwise_in_memory_arrives_as_the_first_one_lay(crew):
    _, found = crew(2, pass_other_layouts)
    for header, (_, features) in zip(headers(1, True, 4, 4, 4, 4), found, strict=True):
        assert torch.equal(features, content(header)[1])
        assert features.stride() == (12, 4, 2, 1)


def wait_until(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def run_ahead(depth, number):
    """For each message, whether the sender came as far as it may while the receiver had it, and too far."""
    phase = headers(1, True, *[2] * number)
    with line(2, depth=depth) as (processes, before, after):
        store, found = processes.store, []
        if after is not None:
            for header in phase:
                after.send(header, content(header))
                store.set(f"begun {header.step}", "")
            after.drain()
        else:
            for header, _ in before.stream(phase):
                # of the first one the layout is known only when it has come: nothing is posted behind it
                last = header.step + (2 * depth - 1 if header.step else depth)
                wait_until(lambda: store.check([f"begun {min(last, number - 1)}"]))  # noqa: B023
                time.sleep(0.1)
                found.append(last + 1 < number and store.check([f"begun {last + 1}"]))
        processes.wait_for_all("end")
        return found


@pytest.mark.parametrize("depth", [1, 3])
def test_a_sender_runs_ahead_of_a_slow_receiver_as_far_as_the_queue_and_no_further(crew, depth):
    """It waits where `depth` messages are under way, besides those for which the receiver has buffers."""
    _, too_far = crew(2, run_ahead, depth, 10)
    assert too_far == [False] * 10


def take_many(depth, number):
    phase = headers(1, True, *([4] * number), 3) + headers(1, False, 5, 5)
    with line(2, depth=depth) as (_, before, after):
        if after is not None:
            for header in phase * 2:
                after.send(header, content(header))
            after.drain()
            return None
        places = set()
        for _ in range(2):
            for _, tensors in before.stream(phase):
                places |= {t.untyped_storage().data_ptr() for t in tensors if t.numel()}
        return places, before.memory


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_receiver_uses_its_buffers_again(crew, depth):
    _, (places, known) = crew(2, take_many, depth, 40)
    kinds, buffers = 3, 3
    assert places <= known
    assert buffers * kinds <= len(places) <= buffers * (depth + 1) * kinds


def hand_on(depth, number):
    """The middle process sends on what it received; the last one is slow."""
    phase = headers(1, True, *[2] * number)
    with line(3, depth=depth) as (processes, before, after):
        if before is None:
            for header in phase:
                after.send(header, content(header))
            after.drain()
            return None
        found = []
        for header, tensors in before.stream(phase):
            if after is not None:
                labels, features, mask, row, empty = tensors
                after.send(header, [labels, features, mask, row, empty], overwritten=before.memory)
                features.neg_()  # its own, from here on
                processes.store.set(f"handed on {header.step}", "")
            else:
                ahead = min(header.step + depth, number - 1)  # by then the middle one's buffers came round
                wait_until(lambda: processes.store.check([f"handed on {ahead}"]))  # noqa: B023
                found.append([t.clone() for t in tensors])
        if after is not None:
            after.drain()
        return found


@pytest.mark.parametrize("depth", [1, 3])
def test_what_is_sent_on_while_its_buffer_is_used_again_arrives_as_it_was(crew, depth):
    number = 10
    *_, found = crew(3, hand_on, depth, number)
    for header, tensors in zip(headers(1, True, *[2] * number), found, strict=True):
        for expected, tensor in zip(content(header), tensors, strict=True):
            assert torch.equal(tensor, expected)


def stop_in_the_middle(done):
    phase = headers(3, True, 4, 4, 4, 4, 4, 2)
    with line(2, depth=3) as (_, before, after):
        if after is not None:
            for header in phase[:done]:
                after.send(header, content(header))
            after.stop(phase[done])
            after.send_value("after the stop")
            after.send_value([1.5, None])
            after.drain()
            return None
        found = [(header, [t.clone() for t in tensors]) for header, tensors in before.stream(phase)]
        return found, before.receive_value(), before.receive_value()


@pytest.mark.parametrize("done", [0, 1, 4])
def test_a_stop_ends_the_messages_and_values_still_arrive(crew, done):
    _, (found, *values) = crew(2, stop_in_the_middle, done)
    *complete, (last, nothing) = found
    assert last == Header(True, 3, done, 4, stop=True) and nothing == []
    assert [header.step for header, _ in complete] == list(range(done))
    for header, tensors in complete:
        assert torch.equal(tensors[1], content(header)[1])
    assert values == ["after the stop", [1.5, None]]


def take_unforeseen():
    phase = headers(1, True, 4, 2, 4, 4) + headers(7, True, 4, 3)
    with line(2, depth=2) as (_, before, after):
        if after is not None:
            for header in phase:
                after.send(header, content(header))
            after.stop(phase[-1])
            after.send_value("end")
            after.drain()
            return None
        found = list(before.unforeseen())
        return found, before.receive_value()


def test_unforeseen_messages_come_in_memory_of_their_own(crew):
    from infopro.engines.packing import unpack

    _, (found, value) = crew(2, take_unforeseen)
    expected = headers(1, True, 4, 2, 4, 4) + headers(7, True, 4, 3)
    assert [header for header, *_ in found] == expected
    for header, layout, buffers in found:
        assert torch.equal(unpack(layout, buffers)[1], content(header)[1])
    assert value == "end"


def expect_another_batch():
    with line(2, depth=1) as (processes, before, after):
        if after is not None:
            header = Header(True, 1, 5, 4)
            after.send(header, content(header))
        else:
            with pytest.raises(StageLost, match=r"are at different batches: got Header\(.*step=5, .*step=6"):
                next(before.stream([Header(True, 1, 6, 4)]))
        processes.wait_for_all("end")


def test_processes_at_different_batches_are_told_apart(crew):
    crew(2, expect_another_batch)


def leave_early(leaver):
    with line(2, depth=1) as (processes, before, after):
        time.sleep(0.7)  # until both have given a sign
        if processes.rank == leaver:
            return None
        begun = time.monotonic()
        phase = headers(1, True, *[4] * 50)
        try:
            if after is not None:
                for header in phase:
                    after.send(header, content(header))
            else:
                next(before.stream(phase))
        except StageLost as error:
            return str(error), error.exit_status, time.monotonic() - begun


@pytest.mark.parametrize("leaver", [0, 1])
def test_a_peer_that_is_gone_is_reported_in_one_line_that_names_it(crew, leaver):
    message, status, waited = crew(2, leave_early, leaver)[1 - leaver]
    assert message.startswith(f"module {leaver + 1} (process {leaver}) ")
    assert "\n" not in message and len(message) < 300
    assert status == 1
    assert waited < SECONDS / 2


def stay_silent():
    with line(2, depth=1, seconds=3) as (processes, before, _):
        if before is not None:
            begun = time.monotonic()
            try:
                next(before.stream(headers(1, True, 4)))
            except StageLost as error:
                processes.store.set("done", "")
                return str(error), time.monotonic() - begun
        processes.signs.doing("forward", 7)
        wait_until(lambda: processes.store.check(["done"]))
        return None


def test_a_peer_that_sends_nothing_is_reported_with_what_it_does(crew):
    _, (message, waited) = crew(2, stay_silent)
    assert message.startswith("module 1 (process 0) has been in forward of step 8 for 3 s: got ")
    assert 2.9 < waited < 6
