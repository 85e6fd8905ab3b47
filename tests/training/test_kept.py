"""Which checkpoint is gone on from when the newest ones are not as they were written."""

import json
import os
import shutil

import pytest

from infopro.errors import BadRun
from infopro.training import (
    Checkpoint,
    checkpoints,
    load_local,
    make_optimizer,
    newest_intact,
    rename_damaged,
    save_checkpoint,
)
from infopro.training._tensor_files import Damaged

FILES = ("heads.safetensors", "model.safetensors", "optimizer.safetensors", "state.json")


@pytest.fixture
def three(tmp_path, build):
    """Checkpoints of epochs 1 to 3."""
    local = build()
    optimizer = make_optimizer("sgd", local.parameters(), learning_rate=0.1, weight_decay=1e-4)
    for epoch in (1, 2, 3):
        save_checkpoint(tmp_path, local, optimizer, Checkpoint(epoch, 12.5, {}), keep=3)
    return [tmp_path / f"epoch-{epoch:04d}" for epoch in (1, 2, 3)]


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(file):
    os.truncate(file, 0)


def test_the_newest_is_used_where_all_are_whole(tmp_path, three):
    assert newest_intact(tmp_path) == (three[2], {})


def test_a_folder_without_checkpoints_is_none(tmp_path):
    assert newest_intact(tmp_path) == (None, {})
    assert newest_intact(tmp_path / "nowhere") == (None, {})


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("harm", [truncate, flip, empty])
def test_a_damaged_one_is_passed_over(tmp_path, three, file, harm):
    harm(three[2] / file)
    found, passed_over = newest_intact(tmp_path)
    assert found == three[1] and list(passed_over) == [three[2]]
    assert isinstance(passed_over[three[2]], Damaged) and str(three[2]) in str(passed_over[three[2]])


@pytest.mark.parametrize("file", FILES[:3])
def test_a_missing_file_is_damage(tmp_path, three, file):
    (three[2] / file).unlink()
    (three[1] / file).unlink()
    found, passed_over = newest_intact(tmp_path)
    assert found == three[0] and list(passed_over) == [three[2], three[1]]


def test_every_byte_of_the_state_counts(tmp_path, three):
    """Also those that say which format it is in, or what the checksum is called."""
    file = three[2] / "state.json"
    content = file.read_bytes()
    for position in range(0, len(content), 29):
        harmed = bytearray(content)
        harmed[position] ^= 1
        file.write_bytes(harmed)
        try:
            found, _ = newest_intact(tmp_path)
        except BadRun as error:
            assert "format" in str(error)
        else:
            assert found == three[1], position


def test_all_damaged_is_one_error_that_lists_them(tmp_path, three):
    for path in three:
        flip(path / "model.safetensors")
    with pytest.raises(BadRun) as error:
        newest_intact(tmp_path)
    message = str(error.value)
    assert message.startswith(f"every checkpoint in {tmp_path} is damaged: got ")
    assert all(f"{path}/model.safetensors is damaged or missing" in message for path in three)
    assert message.endswith("; restore one from a copy, or start anew with another --output")
    assert checkpoints(tmp_path) == three


def test_another_format_is_no_damage(tmp_path, three):
    file = three[2] / "state.json"
    record = json.loads(file.read_text())
    del record["checksum"]
    file.write_text(json.dumps({**record, "format": 1}))
    with pytest.raises(BadRun, match="has a format that this version does not know") as error:
        newest_intact(tmp_path)
    assert not isinstance(error.value, Damaged)


def test_damaged_ones_are_kept_out_of_the_way(tmp_path, three, build):
    flip(three[2] / "heads.safetensors")
    shutil.copytree(three[0], tmp_path / "epoch-0003.damaged")
    rename_damaged([three[2]])
    assert checkpoints(tmp_path) == three[:2]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("epoch-0001", "epoch-0002", "epoch-0003.damaged")
    ]
    with pytest.raises(Damaged):
        load_local(tmp_path / "epoch-0003.damaged", build())
