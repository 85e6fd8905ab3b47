"""SIGTERM and Ctrl-C: asked for between two steps, by one process for all."""

import os
import signal
from types import SimpleNamespace

import pytest

from infopro.stopping import StopRequest

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Together:
    """As much of `Processes` as a stop needs, over news that several of them share."""

    def __init__(self, news):
        self._news = news

    def tell(self, what):
        self._news.add(what)

    def is_told(self, what):
        return what in self._news


def send(number):
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def handlers():
    before = [signal.getsignal(number) for number in SIGNALS]
    yield before
    after = [signal.getsignal(number) for number in SIGNALS]
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)
    assert after == before, "a handler was left behind"


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_asks_to_stop(number, status):
    stop = StopRequest()
    with stop.listening():
        assert stop() is False
        send(number)
        assert stop() is True and stop() is True
    assert stop() is True
    assert stop.exit_status == status


@pytest.fixture
def clock(monkeypatch):
    """Seconds, one entry, which the test moves."""
    now = [1000.0]
    monkeypatch.setattr("infopro.stopping.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.mark.parametrize("first", SIGNALS)
def test_a_later_ctrl_c_ends_the_process_at_once(first, clock, handlers):
    stop = StopRequest()
    with pytest.raises(KeyboardInterrupt), stop.listening():
        send(first)
        clock[0] += 1.1
        assert stop() is True
        send(signal.SIGINT)
    assert [signal.getsignal(number) for number in SIGNALS] == handlers


@pytest.mark.parametrize("first, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_that_come_together_are_one_wish(first, status, clock):
    """Ctrl-C reaches torchrun and all of its processes, to which it passes it on."""
    stop = StopRequest()
    with stop.listening():
        for number in (first, signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            send(number)
            clock[0] += 0.3
        assert stop() is True
    assert stop.exit_status == status


def test_a_later_sigterm_changes_nothing(clock):
    stop = StopRequest()
    with stop.listening():
        send(signal.SIGINT)
        clock[0] += 5.0
        send(signal.SIGTERM)
        assert stop() is True
    assert stop.exit_status == 130


def test_the_others_are_told_once():
    news = []
    stop = StopRequest()
    stop.share(SimpleNamespace(tell=news.append, is_told=news.__contains__))
    with stop.listening():
        send(signal.SIGTERM)
        send(signal.SIGTERM)
    assert news == ["stop"]


def test_a_process_that_was_forked_meanwhile_says_nothing(monkeypatch):
    """A loader's worker has its parent's handlers, and its connection to the other processes."""
    news = []
    stop = StopRequest()
    stop.share(SimpleNamespace(tell=news.append, is_told=news.__contains__))
    with stop.listening():
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr("infopro.stopping.os", SimpleNamespace(getpid=lambda: -1))
            for number in SIGNALS:
                send(number)
        assert stop() is False and news == []
        send(signal.SIGINT)
        assert stop() is True and news == ["stop"]


def test_handlers_come_back_after_an_error_too(handlers):
    with pytest.raises(RuntimeError), StopRequest().listening():
        assert [signal.getsignal(number) for number in SIGNALS] != handlers
        raise RuntimeError
    assert [signal.getsignal(number) for number in SIGNALS] == handlers


def test_handlers_of_others_come_back():
    received = []
    signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    own = signal.getsignal(signal.SIGTERM)
    with StopRequest().listening():
        send(signal.SIGTERM)
    assert received == []
    send(signal.SIGTERM)
    assert received == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is own
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_signal_to_one_process_stops_the_others():
    news = set()
    here, there, elsewhere = StopRequest(), StopRequest(), StopRequest()
    here.share(Together(news))
    there.share(Together(news))
    elsewhere.share(Together(set()))
    with here.listening():
        assert not here() and not there()
        send(signal.SIGINT)
    assert here() and there() and not elsewhere()
    assert here.exit_status == 130
    assert there.exit_status == 143  # as if it had been asked by torchrun


def test_alone_nothing_is_asked_of_others():
    stop = StopRequest()
    stop.share(None)
    assert stop() is False
    with stop.listening():
        send(signal.SIGTERM)
    assert stop() is True
