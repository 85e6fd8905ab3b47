"""Whatever happened to a checkpoint: it is read as it was written, or refused in one line that says so."""

import hashlib
import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from infopro.errors import BadRun, InfoProError
from infopro.training import RunFolder, load_checkpoint, load_model, make_optimizer
from infopro.training.checkpoints import Checkpoint, save_checkpoint

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def whole(tmp_path, build):
    """A checkpoint, what was saved in it, and what else it may be read into."""
    local, other = build(seed=0), build(seed=1)
    optimizer, fresh = optimizer_of(local), optimizer_of(other)
    local.backward(torch.rand(6, 3, 8, 8), torch.arange(6) % 3)
    optimizer.step()
    state = Checkpoint(epoch=1, best_test_error=12.5, configuration={"a": [1]}, totals={"count": 3})
    path = save_checkpoint(tmp_path / "whole", local, optimizer, state)
    return path, (local, optimizer, state), (other, fresh, copied(other), fresh.state_dict())


def optimizer_of(local):
    return make_optimizer("adamw", list(local.parameters()), learning_rate=0.1, weight_decay=1e-4)


def copied(local):
    return {name: value.clone() for name, value in local.state_dict().items()}


def read(path, whole):
    """Nothing but the very same, or a BadRun and nothing changed."""
    _, (local, optimizer, state), (other, fresh, before, unused) = whole
    other.load_state_dict(before)
    fresh.load_state_dict(unused)
    try:
        found = load_checkpoint(path, other, fresh)
    except BadRun as error:
        assert len(str(error).splitlines()) == 1
        assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
        return False
    assert found == state
    assert all(torch.equal(value, local.state_dict()[name]) for name, value in other.state_dict().items())
    assert settings_and_state(fresh) == settings_and_state(optimizer)
    return True


def settings_and_state(optimizer):
    """As bytes, since the difference of long texts takes minutes to show."""
    stored = json.loads(json.dumps(optimizer.state_dict(), default=lambda tensor: tensor.tolist()))
    return hashlib.sha256(json.dumps(stored).encode()).hexdigest()


def sealed(record):
    """With the checksum that a writer of such a record would have given it."""
    record = {name: value for name, value in record.items() if name != "checksum"}
    return {**record, "checksum": hashlib.sha256(json.dumps(record).encode()).hexdigest()}


def test_bytes_that_changed_are_noticed(tmp_path, whole):
    files = sorted(file.name for file in whole[0].iterdir())

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(
        st.sampled_from(files),
        st.integers(0, 2**31),
        st.integers(0, 255),
        st.sampled_from(["flip", "cut", "add"]),
    )
    def spoil(name, place, value, way):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole[0], copy)
        content = bytearray((copy / name).read_bytes())
        place %= len(content)
        if way == "cut":
            del content[place:]
        elif way == "add":
            content[place:place] = bytes([value])
        else:
            content[place] ^= value
        same = bytes(content) == (copy / name).read_bytes()
        blank = name == "state.json" and json_like(content) == json.loads((whole[0] / name).read_text())
        (copy / name).write_bytes(content)
        assert read(copy, whole) == (same or blank)

    spoil()


def json_like(content):
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def test_files_in_each_others_place_are_noticed(tmp_path, whole):
    files = sorted(whole[0].glob("*.safetensors"))
    for first, second in zip(files, files[1:] + files[:1], strict=True):
        copy = tmp_path / first.name
        shutil.copytree(whole[0], copy)
        shutil.copy(first, copy / second.name)
        assert not read(copy, whole)
    assert read(whole[0], whole)


def test_any_other_json_is_refused_even_with_its_checksum(tmp_path, whole):
    record = json.loads((whole[0] / "state.json").read_text())
    copy = tmp_path / "copy"
    shutil.copytree(whole[0], copy)
    places = list(paths_in(record))

    @settings(max_examples=100, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(places), json_values, st.booleans())
    def replace(place, value, seal):
        changed = json.loads(json.dumps(record))
        inside = changed
        for key in place[:-1]:
            inside = inside[key]
        inside[place[-1]] = value
        if changed == record:
            return
        (copy / "state.json").write_text(json.dumps(sealed(changed) if seal else changed))
        try:
            load_checkpoint(copy, *whole[1][:2])
            load_model(copy, whole[1][0].model)
        except InfoProError as error:
            assert len(str(error).splitlines()) == 1
        else:  # a value that may be so: what another run would have written
            assert seal and place[0] in (
                "epoch",
                "step",
                "best_test_error",
                "configuration",
                "totals",
                "optimizer",
                "files",
            )

    replace()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(json_values)
def test_whole_json_of_any_kind_is_refused(value):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as place:
        for seal in (False, True):
            content = sealed({"format": 2, **value}) if seal and isinstance(value, dict) else value
            (Path(place) / "state.json").write_text(json.dumps(content))
            with pytest.raises(BadRun):
                load_model(Path(place), torch.nn.Linear(1, 1))


def paths_in(value, before=()):
    """The way to everything inside."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield (*before, key)
        if len(before) < 4:
            yield from paths_in(part, (*before, key))


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/../../b", "", "..", "a\0b"])
def test_no_file_outside_the_checkpoint_is_opened(whole, monkeypatch, name):
    record = json.loads((whole[0] / "state.json").read_text())
    record["files"][name] = record["files"].pop("model.safetensors")
    (whole[0] / "state.json").write_text(json.dumps(sealed(record)))
    monkeypatch.setattr(
        "infopro.training._tensor_files._sha256", lambda file: pytest.fail(f"{file} was opened")
    )
    with pytest.raises(BadRun, match="files in a form that no version writes"):
        load_model(whole[0], whole[1][0].model)


@pytest.mark.parametrize("content", ["[" * 100_000, "9" * 5000, "[]", "3", '"a"', "null", "\ud800"])
def test_run_folders_of_other_json_are_refused(tmp_path, content):
    folder = RunFolder.create(tmp_path / "run", configuration={}, record={})
    for name, ask in (
        ("config.json", lambda: folder.configuration),
        ("run.json", lambda: folder.record),
        ("log.jsonl", folder.log),
    ):
        (folder.path / name).write_text(f"{content}\n", errors="surrogatepass")
        with pytest.raises(BadRun):
            ask()
