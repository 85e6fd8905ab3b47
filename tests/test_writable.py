"""A place that cannot be written to is refused before anything is read, built or trained."""

import errno
import tempfile
from pathlib import Path

import pytest

from infopro.cli import main
from infopro.errors import BadConfiguration
from infopro.writable import require_writable


@pytest.fixture
def read_only(monkeypatch):
    """As on a file system that is mounted read-only: root is refused there, too."""

    def refuse(*, dir):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)


def everything_in(folder):
    return sorted(folder.rglob("*"))


def test_nothing_is_left_behind(tmp_path):
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "there" / "a" / "b"):
        require_writable(folder)
    assert everything_in(tmp_path) == [tmp_path / "there"]


def test_what_cannot_be_written_is_named(tmp_path, read_only):
    with pytest.raises(BadConfiguration) as error:
        require_writable(tmp_path / "a" / "b")
    assert str(error.value) == (
        f"{tmp_path}/a/b cannot be written: got Read-only file system in {tmp_path}; pass another --output"
    )


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(BadConfiguration, match=r"a file stands where the folder would be: got .*/file;"):
        require_writable(tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_name_that_no_file_system_takes(tmp_path):
    with pytest.raises(BadConfiguration, match="cannot be written: got File name too long in"):
        require_writable(tmp_path / ("a" * 300) / "run")


COMMANDS = {
    "train": ("train", "digits-demo-k4-greedy", "--output", "{new}"),
    "sweep": ("sweep", "study-digits", "--output", "{new}"),
    "demo": ("demo", "--output", "{new}"),
    "analyze": ("analyze", "{run}"),
    "report": ("report", "{run}", "--output", "{new}/report.html"),
    "export": ("export", "{run}", "--output", "{new}/network"),
    "reproduce": ("reproduce", "{run}", "--output", "{new}"),
    "predict": ("predict", "{run}", "{image}", "--output", "{new}/classes.json"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_so_before_it_works(
    command, trained_run, tmp_path, read_only, monkeypatch, capsys
):
    def work(*_, **__):
        raise AssertionError("it was not refused before")

    monkeypatch.setattr("infopro.recipes._session.data_sets.load", work)
    monkeypatch.setattr("infopro.models.create", work)
    monkeypatch.setattr("infopro.demo.digits_on_photos", work)
    image = tmp_path / "image.png"
    image.touch()
    before = everything_in(trained_run)
    places = {"new": tmp_path / "new", "run": trained_run, "image": image}
    arguments = [word.format(**places) for word in COMMANDS[command]]
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written: got Read-only file system in" in line
    assert everything_in(trained_run) == before
    assert everything_in(tmp_path) in ([image], [image, tmp_path / "new"])  # `demo` has begun with its folder


def test_proc_is_no_place_for_a_run(capsys):
    place = "/proc/a-run" if Path("/proc").is_dir() else "/dev/null/run"
    assert main(["train", "digits-demo-k4-greedy", "--output", place]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line or "a file stands" in line
