"""Processes that do not meet: one line in the time that was given, without torch's stack traces."""

import socket
import threading
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

from infopro.engines.lifesigns import LifeSigns
from infopro.engines.meeting import shared_store
from infopro.errors import BadConfiguration, StageLost


@pytest.fixture
def port(monkeypatch):
    """Of a first process that may never come; this is the second one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    place = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(number)}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    return number


def server(port):
    return dist.TCPStore("127.0.0.1", port, 2, True, timeout=timedelta(seconds=20), wait_for_workers=False)


def test_nobody_is_waited_for_as_long_as_was_said(port, capfd):
    begun = time.monotonic()
    with pytest.raises(BadConfiguration, match=rf"did not meet at 127.0.0.1:{port}: got .*refused"):
        shared_store(timedelta(seconds=1))
    assert time.monotonic() - begun < 2
    assert capfd.readouterr() == ("", "")


def test_whoever_comes_late_is_met(port):
    stores = []
    thread = threading.Timer(0.5, lambda: stores.append(server(port)))
    thread.start()
    store, rank, world = shared_store(timedelta(seconds=20))
    thread.join()
    store.set("here", "b")
    assert stores[0].get("here") == b"b" and (rank, world) == (1, 2)


def test_a_first_process_that_ends_meanwhile_is_named(port):
    first = server(port)
    store, rank, _ = shared_store(timedelta(seconds=1))
    del first
    begun = time.monotonic()
    with (
        pytest.raises(StageLost, match=r"module 1 \(process 0\) is gone"),
        LifeSigns(store, rank, 1).beating(timeout=timedelta(seconds=1)),
    ):
        pass
    assert time.monotonic() - begun < 5
