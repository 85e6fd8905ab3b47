"""The store of past batches: what is read, what is overwritten, and what is counted."""

import threading
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infopro.engines.replay import Drawn, ReplayBuffer

SOON = 0.05  # seconds
LONG = 30.0


def filled(*items, **options):
    buffer = ReplayBuffer(**{"capacity": 4, **options})
    for update, item in enumerate(items):
        buffer.put(item, update)
    return buffer


def items(buffer, number):
    return [buffer.draw(timeout=SOON).item for _ in range(number)]


def test_what_was_read_least_comes_first_and_of_equals_the_latest():
    buffer = filled("a", "b", "c")
    assert items(buffer, 4) == ["c", "b", "a", "c"]
    buffer.put("d", 3)
    assert items(buffer, 6) == ["d", "d", "b", "a", "d", "c"]


def test_the_oldest_makes_room_however_often_it_was_read():
    buffer = filled("a", "b", capacity=2)
    assert items(buffer, 2) == ["b", "a"]
    buffer.put("c", 2)
    assert items(buffer, 4) == ["c", "c", "b", "c"]


def test_only_what_was_never_read_counts_as_overwritten_unread():
    buffer = filled("a", "b", "c", capacity=2)
    assert buffer.overwritten_unread == 1
    assert items(buffer, 1) == ["c"]
    buffer.put("d", 3)
    assert buffer.overwritten_unread == 2  # b
    buffer.put("e", 4)
    assert buffer.overwritten_unread == 2  # c was read


def test_uses_count_this_time_too():
    buffer = filled("a", "b", capacity=2)
    drawn = [buffer.draw(timeout=SOON) for _ in range(4)]
    assert [(one.item, one.uses) for one in drawn] == [("b", 1), ("a", 1), ("b", 2), ("a", 2)]


def test_staleness_is_the_updates_that_the_maker_is_known_to_have_made_since():
    buffer = ReplayBuffer(capacity=3)
    for item, update in (("a", 5), ("b", 9), ("c", 7)):
        buffer.put(item, update)
    assert [buffer.draw(timeout=SOON) for _ in range(3)] == [
        Drawn("c", 1, 2),
        Drawn("b", 1, 0),
        Drawn("a", 1, 4),
    ]
    buffer.put("d", 20)
    assert buffer.draw(timeout=SOON) == Drawn("d", 1, 0)
    assert {buffer.draw(timeout=SOON) for _ in range(3)} == {
        Drawn("d", 2, 0),
        Drawn("c", 2, 13),
        Drawn("b", 2, 11),
    }


def test_an_item_is_not_read_more_often_than_allowed():
    buffer = filled("a", "b", most_uses=2)
    assert Counter(items(buffer, 4)) == {"a": 2, "b": 2}
    with pytest.raises(TimeoutError, match="no batch in 0 s"):
        buffer.draw(timeout=SOON)
    buffer.put("c", 2)
    assert items(buffer, 2) == ["c", "c"]


def test_an_empty_buffer_waits_as_long_as_it_was_told():
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        ReplayBuffer(capacity=1).draw(timeout=4 * SOON)
    assert 4 * SOON <= time.monotonic() - begun < LONG / 2


@pytest.mark.parametrize("uses", [None, 1], ids=["empty", "used up"])
def test_who_waits_gets_what_comes(uses):
    buffer = ReplayBuffer(capacity=2, most_uses=uses)
    if uses:
        buffer.put("used", 0)
        assert items(buffer, 1) == ["used"]
    with later(lambda: buffer.put("new", 1)):
        assert buffer.draw(timeout=LONG).item == "new"


def test_who_waits_learns_of_a_failure():
    buffer, error = ReplayBuffer(capacity=1), RuntimeError("lost")
    with later(lambda: buffer.fail(error)), pytest.raises(RuntimeError) as found:
        buffer.draw(timeout=LONG)
    assert found.value is error


def test_a_failure_is_not_hidden_by_old_batches():
    """Else a module would train on them to its end, while the one before is long lost."""
    buffer = filled("a", "b")
    buffer.fail(RuntimeError("lost"))
    with pytest.raises(RuntimeError, match="lost"):
        buffer.draw(timeout=SOON)


def test_after_the_last_batch_the_old_ones_are_read_on():
    buffer = filled("a", "b")
    buffer.finish()
    assert items(buffer, 4) == ["b", "a", "b", "a"]


@pytest.mark.parametrize("uses", [None, 1], ids=["empty", "used up"])
def test_when_nothing_is_left_and_nothing_comes_nobody_waits(uses):
    buffer = ReplayBuffer(capacity=2, most_uses=uses)
    if uses:
        buffer.put("used", 0)
        assert items(buffer, 1) == ["used"]
    with later(buffer.finish), pytest.raises(EOFError, match="no batch is left"):
        buffer.draw(timeout=LONG)


class later:
    """Calls something from another thread while the block is waiting."""

    def __init__(self, action):
        self._timer = threading.Timer(SOON, action)

    def __enter__(self):
        self._timer.start()

    def __exit__(self, *error):
        self._timer.join()


@given(st.integers(1, 4), st.sampled_from([None, 1, 2]), st.lists(st.booleans(), max_size=40))
@settings(max_examples=200, deadline=None)
def test_it_does_what_a_plain_list_would(capacity, most_uses, steps):
    buffer, kept, unread = ReplayBuffer(capacity=capacity, most_uses=most_uses), [], 0
    for number, put in enumerate(steps):
        if put:
            buffer.put(number, number)
            kept.append([number, 0])
            unread += sum(not uses for _, uses in kept[:-capacity])
            kept = kept[-capacity:]
            continue
        allowed = [entry for entry in kept if most_uses is None or entry[1] < most_uses]
        if not allowed:
            with pytest.raises(TimeoutError):
                buffer.draw(timeout=0.0)
            continue
        least = min(entry[1] for entry in allowed)
        chosen = [entry for entry in allowed if entry[1] == least][-1]
        chosen[1] += 1
        assert buffer.draw(timeout=0.0) == Drawn(chosen[0], chosen[1], kept[-1][0] - chosen[0])
    assert buffer.overwritten_unread == unread


def test_one_thread_puts_while_another_draws():
    buffer, drawn = ReplayBuffer(capacity=3, most_uses=1), []
    last = 300

    def draw():
        while not drawn or drawn[-1] < last:
            drawn.append(buffer.draw(timeout=LONG).item)

    thread = threading.Thread(target=draw)
    thread.start()
    for number in range(last + 1):
        buffer.put(number, number)
    thread.join()
    assert len(set(drawn)) == len(drawn)
    assert len(drawn) + buffer.overwritten_unread <= last + 1 <= len(drawn) + buffer.overwritten_unread + 3
