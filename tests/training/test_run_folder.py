import json

import pytest

from infopro.errors import BadRun
from infopro.training import RunFolder

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
