import errno
import json
import os

import pytest

from infopro.errors import BadRun
from infopro.training import RunFolder, locked

CONFIGURATION = {"model": "cifar-resnet32", "seed": 0, "cuts": ["layer1.0"]}


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", configuration=CONFIGURATION, record={"torch": "2.11"})


def test_what_is_created_can_be_opened(folder):
    opened = RunFolder.open(folder.path)
    assert opened.configuration == CONFIGURATION and opened.record == {"torch": "2.11"}
    assert opened.log() == [] and not opened.has_checkpoint()
    with pytest.raises(BadRun, match="the run has no checkpoint"):
        opened.last_checkpoint()


def test_nothing_is_overwritten(folder, tmp_path):
    with pytest.raises(BadRun, match=rf"the run folder exists: got {folder.path}; pass --resume"):
        RunFolder.create(folder.path, configuration={}, record={})
    assert folder.configuration == CONFIGURATION
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadRun, match="a file stands where the folder would be"):
        RunFolder.create(tmp_path / "file", configuration={}, record={})
    (tmp_path / "empty").mkdir()
    RunFolder.create(tmp_path / "empty", configuration={}, record={})


def test_folders_without_a_run_are_refused(tmp_path):
    with pytest.raises(BadRun, match="the run folder does not exist"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(BadRun, match="the folder holds no run"):
        RunFolder.open(tmp_path)


def test_unwritable_places_are_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadRun, match="cannot be written"):
        RunFolder.create(tmp_path / "file" / "run", configuration={}, record={})


def test_other_settings_are_listed(folder):
    folder.require_same(dict(reversed(CONFIGURATION.items())))
    changed = {**CONFIGURATION, "seed": 1, "extra": True}
    del changed["cuts"]
    message = r"got seed 1 \(run: 0\), cuts None \(run: \['layer1.0'\]\), extra True \(run: None\)"
    with pytest.raises(BadRun, match=message) as error:
        folder.require_same(changed)
    assert "model" not in str(error.value)


def test_the_log_comes_back_exactly(folder, record):
    records = [record(epoch=1), record(epoch=2, test_loss=1 / 3, extra={"note": "α\u2028β"})]
    for each in records:
        folder.append(each)
    assert folder.log() == records
    assert len((folder.path / "log.jsonl").read_text().splitlines()) == 2


def test_the_log_is_cut_back_to_the_checkpoint(folder, record):
    for epoch in (1, 2, 3):
        folder.append(record(epoch=epoch))
    before = (folder.path / "log.jsonl").read_text()
    folder.truncate_log(last_epoch=3)
    assert (folder.path / "log.jsonl").read_text() == before
    folder.truncate_log(last_epoch=2)
    assert [r.epoch for r in folder.log()] == [1, 2]
    folder.append(record(epoch=3))
    assert (folder.path / "log.jsonl").read_text() == before
    folder.truncate_log(last_epoch=0)
    assert folder.log() == []


def test_a_line_that_was_not_finished_is_dropped(folder, record):
    folder.append(record(epoch=1))
    with (folder.path / "log.jsonl").open("a") as stream:
        stream.write(json.dumps({"epoch": 2}))
    assert [r.epoch for r in folder.log()] == [1]
    folder.truncate_log(last_epoch=1)
    folder.append(record(epoch=2))
    assert [r.epoch for r in folder.log()] == [1, 2]


@pytest.mark.parametrize("line", ["{", "[]", '{"epoch": 2}', "\x00"])
def test_a_damaged_line_is_named(folder, record, line):
    folder.append(record(epoch=1))
    with (folder.path / "log.jsonl").open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(BadRun, match=rf"line 2 of {folder.path / 'log.jsonl'} cannot be read"):
        folder.log()


@pytest.mark.parametrize("content", [b"{", b"\xff"])
def test_a_damaged_configuration_is_named(folder, content):
    (folder.path / "config.json").write_bytes(content)
    with pytest.raises(BadRun, match=rf"{folder.path / 'config.json'} cannot be read"):
        _ = RunFolder.open(folder.path).configuration


def test_the_newest_complete_checkpoint_is_the_last(folder):
    for name in ("epoch-0002", "epoch-0010", "epoch-0011"):
        (folder.checkpoint_folder / name).mkdir()
    for name in ("epoch-0002", "epoch-0010"):
        (folder.checkpoint_folder / name / "state.json").write_text("{}")
    assert folder.has_checkpoint()
    assert folder.last_checkpoint() == folder.checkpoint_folder / "epoch-0010"


def test_a_line_of_the_log_is_on_the_disk_before_a_checkpoint_says_so(folder, record, monkeypatch):
    synced, real = [], os.fsync
    monkeypatch.setattr("os.fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), real(fd)))
    folder.append(record())
    assert synced == [(folder.path / "log.jsonl").stat().st_ino, folder.path.stat().st_ino]


@pytest.mark.parametrize("moment", range(1, 7))
def test_a_run_that_was_killed_at_its_beginning_may_begin_again(tmp_path, monkeypatch, moment):
    """Killed at any fsync or rename of `create`: what it leaves is a run, or as good as nothing."""
    calls = iter(range(1, 99))

    def killed(real):
        def call(*arguments):
            if next(calls) == moment:
                raise KeyboardInterrupt
            return real(*arguments)

        return call

    path = tmp_path / "run"
    with monkeypatch.context() as patch, locked(path):
        for name in ("fsync", "replace"):
            patch.setattr(f"os.{name}", killed(getattr(os, name)))
        with pytest.raises(KeyboardInterrupt):
            RunFolder.create(path, configuration=CONFIGURATION, record={"torch": "2.11"})
    if (path / "config.json").exists():
        opened = RunFolder.open(path)
    else:
        opened = RunFolder.create(path, configuration=CONFIGURATION, record={"torch": "2.11"})
    assert opened.configuration == CONFIGURATION and opened.record == {"torch": "2.11"}
    assert not list(path.glob(".*.partial"))


def test_others_files_are_no_beginning(tmp_path):
    (tmp_path / "run.json").write_text("mine")
    with pytest.raises(BadRun, match="the run folder exists"):
        RunFolder.create(tmp_path, configuration={}, record={})
    with locked(tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(BadRun, match="the run folder exists"):
            RunFolder.create(tmp_path, configuration={}, record={})
    assert (tmp_path / "run.json").read_text() == "mine"


def test_a_full_disk_ends_the_log_in_one_line_and_leaves_what_was(folder, record, monkeypatch):
    folder.append(record(epoch=1))
    folder.append(record(epoch=2))

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(BadRun, match=r"log.jsonl cannot be written: got .*No space left .*; free space"):
            folder.append(record(epoch=3))
        with pytest.raises(BadRun, match=r"log.jsonl cannot be written: got .*No space left .*; free space"):
            folder.truncate_log(last_epoch=1)
    folder.truncate_log(last_epoch=2)
    assert [r.epoch for r in folder.log()] == [1, 2]


def test_the_best_epochs_checkpoint_is_the_first_of_equals(folder, record):
    assert folder.best_name() is None
    with pytest.raises(BadRun, match="no checkpoint of its best epoch"):
        folder.best_checkpoint()
    for epoch, error in ((1, 50.0), (2, 40.0), (3, 45.0), (4, 40.0)):
        folder.append(record(epoch=epoch, test_error=error))
    assert folder.best_name() == "epoch-0002"
    with pytest.raises(BadRun, match=r"no checkpoint of its best epoch.*; allowed: the last one; pass"):
        folder.best_checkpoint()
    (folder.checkpoint_folder / "epoch-0002").mkdir()
    (folder.checkpoint_folder / "epoch-0002/state.json").write_text("{}")
    assert folder.best_checkpoint() == folder.checkpoint_folder / "epoch-0002"


def test_a_cached_run_has_no_best_one(tmp_path, record):
    """Its checkpoints count the epochs of all modules, its log those of the last one."""
    folder = RunFolder.create(tmp_path / "run", configuration={"parallel": "cached"}, record={})
    folder.append(record(epoch=1))
    assert folder.best_name() is None


def test_lines_are_cut_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path / "run", configuration={}, record={})
    for number in range(3):
        folder.append_line("modules.jsonl", {"epoch": number})
    file = folder.path / "modules.jsonl"
    before = file.read_text()
    with monkeypatch.context() as full:
        full.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(BadRun, match="free space"):
            folder.keep_lines("modules.jsonl", 1)
    assert file.read_text() == before
    folder.keep_lines("modules.jsonl", 1)
    assert file.read_text() == '{"epoch": 0}\n'
    folder.keep_lines("absent.jsonl", 1)
    assert not (folder.path / "absent.jsonl").exists()
