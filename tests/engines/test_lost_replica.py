"""A process that is lost in a collective, of which torch says only that a connection was closed.

Real processes are killed by benchmarks/kill_and_resume.py, and by test_faults.py.
"""

from types import SimpleNamespace

import pytest
import torch.distributed as dist

from infopro.engines.lifesigns import LifeSigns
from infopro.engines.processes import _naming_the_lost
from infopro.errors import AlreadyTold, BadInput, StageLost

RESET = "[/gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:11990: Connection reset by peer. GLHF!"
HANGS = "[/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1000ms for recv operation to complete"
GONE = "module 1 (process 1, replica 2) is gone; its last: reduce of step 3"
SILENT = "module 1 (process 1, replica 2) has given no sign of life for 9 s; its last: forward of step 2"


def raised(error, *, gone=GONE):
    signs = SimpleNamespace(explain_lost=lambda: gone, explain=lambda rank: SILENT)
    with pytest.raises(Exception) as caught, _naming_the_lost(signs):
        raise error
    return caught.value


@pytest.mark.parametrize("error", [RuntimeError(RESET), dist.DistNetworkError("Broken pipe")])
def test_a_lost_process_is_named(error):
    found = raised(error)
    assert isinstance(found, StageLost) and found.exit_status == 1
    assert str(found).startswith((f"{GONE}: got Read error", f"{GONE}: got Broken pipe"))


def test_a_hanging_process_is_named():
    found = raised(RuntimeError(HANGS))
    assert isinstance(found, StageLost) and str(found).startswith(f"{SILENT}: got Timed out")


def test_of_one_that_has_said_why_it_ends_nothing_more_is_said():
    found = raised(RuntimeError(RESET), gone=None)
    assert isinstance(found, AlreadyTold) and found.exit_status == 1


@pytest.mark.parametrize("error", [RuntimeError("of no collective"), ValueError(RESET), BadInput("gloo")])
def test_other_errors_stay_what_they_are(error):
    assert raised(error) is error


def test_gone_is_who_gives_no_sign_when_it_is_due(monkeypatch):
    now = [1000.0]
    clock = SimpleNamespace(time=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr("infopro.engines.lifesigns.time", clock)
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    store = dist.HashStore()
    here, *others = (LifeSigns(store, rank, 2) for rank in range(4))
    for signs in others:
        signs.doing("reduce", 6)
        signs._tell(store)
    now[0] += 0.3
    for signs in (others[0], others[2]):
        signs._tell(store)
    assert here.explain_lost() == "module 2 (process 2, replica 1) is gone; its last: reduce of step 7"
    others[1].end()
    now[0] += 0.1
    for signs in (others[0], others[2]):
        signs._tell(store)
    assert here.explain_lost() is None
