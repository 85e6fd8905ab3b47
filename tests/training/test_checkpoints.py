import json

import pytest
import torch

from infopro.errors import BadRun
from infopro.objectives import EndToEnd, Greedy
from infopro.training import (
    Checkpoint,
    checkpoints,
    load_checkpoint,
    load_model,
    make_optimizer,
    save_checkpoint,
)

OPTIMIZERS = ("sgd", "adamw")


def optimizer_of(local, name="sgd"):
    return make_optimizer(name, local.parameters(), learning_rate=0.1, weight_decay=1e-4)


def step(local, optimizer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    optimizer.zero_grad()
    images = torch.rand(6, 3, 8, 8, generator=generator).to(memory_format=torch.channels_last)
    local.backward((images - 0.3) / 0.2, torch.arange(6) % 3)
    optimizer.step()


def state(epoch=1, **configuration):
    return Checkpoint(epoch=epoch, best_test_error=12.5, configuration=configuration)


@pytest.fixture
def trained(build):
    local = build()
    optimizer = optimizer_of(local)
    step(local, optimizer)
    return local, optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_loaded_goes_on_bit_for_bit(tmp_path, build, name):
    local, other = build(seed=0), build(seed=1)
    optimizer, restored = optimizer_of(local, name), optimizer_of(other, name)
    for seed in range(3):
        step(local, optimizer, seed)
    path = save_checkpoint(tmp_path, local, optimizer, state(3, model="small", cuts=["0", "1"]))
    found = load_checkpoint(path, other, restored)
    assert found == Checkpoint(3, 12.5, {"model": "small", "cuts": ["0", "1"]})
    for seed in (3, 4):
        assert_same_state(local, optimizer, other, restored)
        step(local, optimizer, seed)
        step(other, restored, seed)
    assert_same_state(local, optimizer, other, restored)


def assert_same_state(local, optimizer, other, restored):
    for name, value in local.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert optimizer.param_groups[0]["lr"] == restored.param_groups[0]["lr"]
    for left, right in zip(local.parameters(), other.parameters(), strict=True):
        ours, theirs = optimizer.state[left], restored.state[right]
        assert ours.keys() == theirs.keys() and ours
        for name in ours:
            assert torch.equal(torch.as_tensor(ours[name]), torch.as_tensor(theirs[name])), name
            assert torch.as_tensor(ours[name]).stride() == torch.as_tensor(theirs[name]).stride(), name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_before_the_first_step_and_without_heads(tmp_path, build, name):
    local = build(objective=EndToEnd(), cuts=None)
    path = save_checkpoint(tmp_path, local, optimizer_of(local, name), state(0))
    other = build(seed=1, objective=EndToEnd(), cuts=None)
    optimizer = optimizer_of(other, name)
    load_checkpoint(path, other, optimizer)
    assert torch.equal(local.model[0][0].weight, other.model[0][0].weight)
    step(other, optimizer)


def test_the_network_alone_is_enough_for_evaluation(tmp_path, build, trained):
    path = save_checkpoint(tmp_path, *trained, state())
    model = build(seed=1).model
    assert load_model(path, model).epoch == 1
    assert all(torch.equal(v, model.state_dict()[n]) for n, v in trained[0].model.state_dict().items())


def test_no_file_can_execute_code(tmp_path, trained):
    path = save_checkpoint(tmp_path, *trained, state())
    names = sorted(file.name for file in path.iterdir())
    assert names == ["heads.safetensors", "model.safetensors", "optimizer.safetensors", "state.json"]
    assert set(json.loads((path / "state.json").read_text())["sha256"]) == {"model", "heads", "optimizer"}


def test_the_last_two_are_kept(tmp_path, trained):
    for epoch in range(1, 5):
        save_checkpoint(tmp_path, *trained, state(epoch))
    assert [path.name for path in checkpoints(tmp_path)] == ["epoch-0003", "epoch-0004"]
    save_checkpoint(tmp_path, *trained, state(5), keep=3)
    assert [path.name for path in checkpoints(tmp_path)] == ["epoch-0003", "epoch-0004", "epoch-0005"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0003", "epoch-0004", "epoch-0005"]


@pytest.mark.parametrize("file", ["model.safetensors", "heads.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "missing"])
def test_damaged_files_are_named(tmp_path, build, trained, file, damage):
    path = save_checkpoint(tmp_path, *trained, state())
    content = bytearray((path / file).read_bytes())
    content[-1] ^= 1
    if damage == "missing":
        (path / file).unlink()
    else:
        (path / file).write_bytes(content if damage == "flipped bit" else content[:-9])
    other = build(seed=1)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(BadRun, match=rf"{path / file} is damaged or missing; delete {path}"):
        load_checkpoint(path, other, optimizer_of(other))
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[]", "cannot be read"),
        (b'{"epoch": 1}', "is incomplete: got no best_test_error, configuration, optimizer, sha256"),
    ],
)
def test_a_damaged_state_is_named(tmp_path, trained, content, message):
    path = save_checkpoint(tmp_path, *trained, state())
    (path / "state.json").write_bytes(content)
    with pytest.raises(BadRun, match=rf"the checkpoint {path} {message}"):
        load_checkpoint(path, *trained)
    with pytest.raises(BadRun, match=rf"the checkpoint {path} {message}"):
        load_model(path, trained[0].model)


def test_another_network_is_refused(tmp_path, build, trained):
    path = save_checkpoint(tmp_path, *trained, state())
    other = build(objective=Greedy())
    with pytest.raises(BadRun, match=rf"the checkpoint {path} belongs to another network"):
        load_checkpoint(path, other, optimizer_of(other))
    with pytest.raises(BadRun, match=rf"the checkpoint {path} belongs to another network"):
        load_model(path, torch.nn.Linear(3, 3))


def test_another_optimizer_is_refused(tmp_path, trained):
    path = save_checkpoint(tmp_path, *trained, state())
    fewer = torch.optim.SGD(trained[0].model.parameters(), lr=0.1)
    with pytest.raises(BadRun, match="the checkpoint's optimizer belongs to another network"):
        load_checkpoint(path, trained[0], fewer)


@pytest.mark.parametrize("moment", ["second file", "state", "rename"])
def test_an_error_while_writing_leaves_the_old_checkpoint(tmp_path, build, trained, monkeypatch, moment):
    good = save_checkpoint(tmp_path, *trained, state(1))
    weight = trained[0].model[0][0].weight.detach().clone()
    step(*trained, seed=1)
    with monkeypatch.context() as patch:
        break_writing(patch, moment)
        with pytest.raises(OSError, match="disk full"):
            save_checkpoint(tmp_path, *trained, state(2), keep=1)
    assert checkpoints(tmp_path) == [good]
    other = build(seed=1)
    load_checkpoint(good, other, optimizer_of(other))
    assert torch.equal(other.model[0][0].weight, weight)
    newer = save_checkpoint(tmp_path, *trained, state(2), keep=1)
    assert list(tmp_path.iterdir()) == [newer], "what was left unfinished is cleared away"


def break_writing(patch, moment):
    import safetensors.torch

    calls = iter(range(9))
    save_file = safetensors.torch.save_file

    def save(content, file):
        if moment == "second file" and next(calls) == 1:
            raise OSError("disk full")
        save_file(content, file)

    def fail(*_):
        raise OSError("disk full")

    patch.setattr("safetensors.torch.save_file", save)
    if moment == "state":
        patch.setattr("os.fsync", fail)
    if moment == "rename":
        patch.setattr("os.replace", fail)
