"""SIGTERM and Ctrl-C end any command with one line and a status, and leave nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from infopro.cli import main
from infopro.ending import ended_by_sigterm
from infopro.prediction import write_mask
from infopro.prediction.new_files import write_new

STATUSES = {signal.SIGTERM: 143, signal.SIGINT: 130}
COMMANDS = {
    "evaluate": ["evaluate", "run"],
    "predict": ["predict", "run", "photo.png"],
    "analyze": ["analyze", "run"],
    "sweep": ["sweep", "--objectives=greedy"],
    "train": ["train"],
}


@pytest.mark.parametrize("number", STATUSES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_ends_a_command_with_one_line(command, number, monkeypatch, capsys):
    def work(*arguments):
        os.kill(os.getpid(), number)
        pytest.fail("it went on")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(f"infopro.{command}_command.run", work)
    assert main(COMMANDS[command]) == STATUSES[number]
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1 and said.err.startswith("infopro: ")
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_program_that_listens_itself_goes_on_to():
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        with ended_by_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]


def test_a_thread_leaves_signals_alone():
    found = []

    def look():
        with ended_by_sigterm():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_file_is_not_there(error, tmp_path, monkeypatch):
    class Interrupted:
        def __init__(self, stream):
            self.stream = stream

        def __enter__(self):
            return self

        def __exit__(self, *reason):
            self.stream.close()

        def write(self, content):
            self.stream.write(content[:3])
            raise error

    opened = type(tmp_path).open
    monkeypatch.setattr(type(tmp_path), "open", lambda path, mode: Interrupted(opened(path, mode)))
    with pytest.raises(error if isinstance(error, type) else OSError):
        write_new(tmp_path / "new.json", json.dumps([1, 2, 3]).encode())
    with pytest.raises(error if isinstance(error, type) else OSError):
        write_mask(tmp_path / "mask.png", np.zeros((2, 2), np.uint8), [(0, 0, 0), (1, 1, 1)])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_there_stays(tmp_path):
    file = tmp_path / "old.json"
    file.write_text("old")
    with pytest.raises(FileExistsError):
        write_new(file, b"new")
    assert file.read_text() == "old"


@pytest.mark.parametrize("number", STATUSES)
def test_what_fails_while_it_is_interrupted_is_an_interruption(number, monkeypatch, capsys):
    """torch's stack of modes, for one, is emptied twice where a signal comes in between."""

    def work(*arguments):
        try:
            os.kill(os.getpid(), number)
            pytest.fail("it went on")
        finally:
            raise RuntimeError("trying to pop from empty mode stack")

    monkeypatch.setattr("infopro.evaluate_command.run", work)
    assert main(COMMANDS["evaluate"]) == STATUSES[number]
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_fails_by_itself_keeps_its_traceback(monkeypatch):
    def work(*arguments):
        try:
            raise KeyError("dealt with")
        except KeyError:
            raise RuntimeError("nobody has foreseen this") from None

    monkeypatch.setattr("infopro.evaluate_command.run", work)
    with pytest.raises(RuntimeError, match="foreseen") as caught:
        main(COMMANDS["evaluate"])
    assert caught.traceback[-1].name == "work"


@pytest.mark.parametrize("number", STATUSES)
def test_a_wait_that_no_exception_reaches_is_ended_at_once(number):
    script = (
        "import os, signal\n"
        "from infopro.ending import ended_at_once, ended_by_sigterm\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "before = signal.getsignal(signal.SIGINT)\n"
        "with ended_by_sigterm():\n"
        "    with ended_at_once():\n"
        "        pass\n"
        "    assert signal.getsignal(signal.SIGINT) is before\n"
        "    assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN)\n"
        "    with ended_at_once():\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "print('it went on')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -number and done.stdout == done.stderr == ""
