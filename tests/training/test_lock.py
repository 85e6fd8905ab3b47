"""One process at a time in a folder; a killed one holds nothing."""

import os
import signal
import subprocess
import sys

import pytest

from infopro.errors import BadRun
from infopro.training import LOCK_FILE, RunFolder, locked, refuse_locked

HOLD = """
import os, sys, time
from pathlib import Path
from infopro.training.lock import locked
with locked(Path(sys.argv[1])):
    child = os.fork() if sys.argv[2] == "with a child" else 0
    if child or sys.argv[2] == "alone":
        print(child, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold(tmp_path):
    """Another process that holds the lock, and the number of its child, 0 for none."""
    started = []

    def begin(how="alone"):
        command = [sys.executable, "-c", HOLD, str(tmp_path), how]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        children.append(int(started[-1].stdout.readline()))
        return started[-1], children[-1]

    children = []
    yield begin
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
    for child in filter(None, children):
        os.kill(child, signal.SIGKILL)


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path, hold):
    other, _ = hold()
    expected = (
        rf"another process is writing to the run folder {tmp_path}: got process {other.pid} on \S+ "
        r"since \d{4}-\d\d-\d\dT[\d:]+\+00:00; wait for it, stop it, or pass another --output"
    )
    with pytest.raises(BadRun, match=expected), locked(tmp_path):
        raise AssertionError("it was let in")
    with pytest.raises(BadRun, match=expected):
        refuse_locked(tmp_path)
    content = (tmp_path / LOCK_FILE).read_text()
    assert str(other.pid) in content, "a refused process changes nothing"


@pytest.mark.parametrize("how", ["alone", "with a child"])
def test_a_killed_process_holds_nothing_even_if_its_child_lives(tmp_path, hold, how):
    other, child = hold(how)
    other.send_signal(signal.SIGKILL)
    other.wait()
    refuse_locked(tmp_path)
    with locked(tmp_path):
        assert f'"process": {os.getpid()},' in (tmp_path / LOCK_FILE).read_text()
    assert (tmp_path / LOCK_FILE).read_text() == ""
    assert not child or os.path.exists(f"/proc/{child}")


ASK = """
import sys
from pathlib import Path
from infopro.errors import BadRun
from infopro.training.lock import locked
try:
    with locked(Path(sys.argv[1])):
        print("let in")
except BadRun as error:
    print(error)
"""


def ask(folder):
    return subprocess.run(
        [sys.executable, "-c", ASK, str(folder)], capture_output=True, text=True, check=True
    ).stdout


def test_it_is_free_again_afterwards_also_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), locked(tmp_path):
        assert f"got process {os.getpid()} on " in ask(tmp_path)
        raise RuntimeError
    assert ask(tmp_path) == "let in\n"


def test_nothing_is_made_by_looking(tmp_path):
    refuse_locked(tmp_path)
    refuse_locked(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_folders_way_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(BadRun, match="the sweep folder cannot be written"),
        locked(tmp_path / "file" / "run", what="sweep"),
    ):
        pass


def test_a_locked_folder_is_still_new(tmp_path):
    """The lock is taken before the run is made, so that of two that start at once one makes it."""
    with locked(tmp_path / "run"):
        RunFolder.require_new(tmp_path / "run")
        RunFolder.create(tmp_path / "run", configuration={}, record={})
    with pytest.raises(BadRun, match="the run folder exists"):
        RunFolder.require_new(tmp_path / "run")
