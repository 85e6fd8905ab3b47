import errno
import json
import os
import shutil

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from infopro.errors import BadRun
from infopro.objectives import EndToEnd, Greedy
from infopro.training import load_checkpoint, load_model, make_optimizer
from infopro.training.checkpoints import (
    Checkpoint,
    checkpoints,
    publish,
    remove_partial,
    save_checkpoint,
    write_shard,
)

OPTIMIZERS = ("sgd", "adamw")
K = 3
FILES = [f"{kind}-{k}-of-{K}.safetensors" for kind in ("heads", "model", "optimizer") for k in (1, 2, 3)]


def optimizer_of(local, name="sgd"):
    here = [parameter for parameter in local.parameters() if not parameter.is_meta]
    return make_optimizer(name, here, learning_rate=0.1, weight_decay=1e-4)


def step(local, optimizer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    optimizer.zero_grad()
    images = torch.rand(6, 3, 8, 8, generator=generator).to(memory_format=torch.channels_last)
    local.backward((images - 0.3) / 0.2, torch.arange(6) % 3)
    optimizer.step()


def state(epoch=1, step=0, **configuration):
    return Checkpoint(epoch=epoch, best_test_error=12.5, configuration=configuration, step=step)


def stage_of(name):
    """Of model.0.* and heads.0.* the first; what stands behind the last cut is the last stage's."""
    kind, index, *_ = name.split(".")
    assert kind in ("model", "heads")
    return min(int(index), K - 1)


def names_of(local, stage):
    return {name for name in local.state_dict() if stage_of(name) == stage}


def keep_only(local, stage):
    """What a process of its own holds: the other stages' tensors are on the meta device."""
    others = local.state_dict().keys() - names_of(local, stage)
    for prefix, module in local.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name, value in tensors.items():
                if f"{prefix}.{name}" in others:
                    meta = value.detach().to("meta")
                    tensors[name] = nn.Parameter(meta) if isinstance(value, nn.Parameter) else meta
    return local


def write_shards(folder, processes, found):
    """What K processes write, each given as (local, optimizer); what crosses a process is JSON."""
    shards = [
        write_shard(folder, *process, found, shard=f"{k + 1}-of-{K}", names=names_of(process[0], k))
        for k, process in enumerate(processes)
    ]
    return json.loads(json.dumps(shards))


def save_sharded(folder, processes, found, **options):
    return publish(folder, found, write_shards(folder, processes, found), **options)


def in_own_process(build, path, stage, name="sgd"):
    """A stage whose process restored it from the checkpoint, and what it read."""
    local = keep_only(build(seed=7), stage)
    optimizer = optimizer_of(local, name)
    return (local, optimizer), load_checkpoint(path, local, optimizer)


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
    """Whatever `other` holds for real is what `local` holds."""
    for name, value in other.state_dict().items():
        assert value.is_meta or torch.equal(value, local.state_dict()[name]), name
    ours, theirs = optimizer.param_groups[0], restored.param_groups[0]
    assert {k: v for k, v in ours.items() if k not in ("params", "betas")} == {
        k: v for k, v in theirs.items() if k not in ("params", "betas")
    }
    assert tuple(ours.get("betas", ())) == tuple(theirs.get("betas", ()))
    assert len(restored.state) == len(theirs["params"])
    for left, right in zip(local.parameters(), other.parameters(), strict=True):
        if not right.is_meta:
            assert_same_entries(optimizer.state[left], restored.state[right])


def assert_same_entries(ours, theirs):
    assert ours.keys() == theirs.keys() and ours
    for name in ours:
        left, right = torch.as_tensor(ours[name]), torch.as_tensor(theirs[name])
        assert torch.equal(left, right) and left.stride() == right.stride(), name


def test_a_difference_would_be_found(build, trained):
    other = build()
    restored = optimizer_of(other)
    step(other, restored)
    assert_same_state(*trained, other, restored)
    with torch.no_grad():
        restored.state[other.model[1][0].weight]["momentum_buffer"][0, 0, 0, 0] += 1
    with pytest.raises(AssertionError, match="momentum_buffer"):
        assert_same_state(*trained, other, restored)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_k_processes_wrote_resumes_on_one(tmp_path, build, name):
    """From one to K processes and back: what is trained on is what was trained before, bit for bit."""
    local, other = build(seed=0), build(seed=1)
    optimizer, restored = optimizer_of(local, name), optimizer_of(other, name)
    optimizer.param_groups[0]["lr"] = 0.03
    for seed in range(3):
        step(local, optimizer, seed)
    path = save_checkpoint(tmp_path / "one", local, optimizer, state(3, model="small"))
    found = [in_own_process(build, path, stage, name) for stage in range(K)]
    for process, read in found:
        assert read == state(3, model="small")
        assert_same_state(local, optimizer, *process)
    path = save_sharded(tmp_path / "many", [process for process, _ in found], state(3, model="small"))
    assert sorted(file.name for file in path.iterdir()) == [*FILES, "state.json"]
    assert load_checkpoint(path, other, restored) == state(3, model="small")
    for seed in (3, 4):
        assert_same_state(local, optimizer, other, restored)
        step(local, optimizer, seed)
        step(other, restored, seed)
    assert_same_state(local, optimizer, other, restored)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_shards_of_one_network_resume_in_k_processes(tmp_path, build, name):
    local = build()
    optimizer = optimizer_of(local, name)
    step(local, optimizer)
    path = save_sharded(tmp_path, [(local, optimizer)] * K, state())
    for stage in range(K):
        process, _ = in_own_process(build, path, stage, name)
        held = {n for n, v in process[0].state_dict().items() if not v.is_meta}
        assert held == names_of(local, stage) and 0 < len(held) < len(local.state_dict())
        assert_same_state(local, optimizer, *process)


def test_every_stage_is_in_its_own_files_only(tmp_path, trained):
    save_sharded(tmp_path, [trained] * K, state())
    listed = json.loads((tmp_path / "epoch-0001/state.json").read_text())
    for name, entry in listed["files"].items():
        kind, stage, *_ = name.split("-")
        prefix = "" if kind == "optimizer" else f"{kind}."
        assert {stage_of(prefix + tensor) for tensor in entry["tensors"]} <= {int(stage) - 1}, name
    names = [group["parameters"] for group in listed["optimizer"]["groups"]]
    assert [{stage_of(n) for n in group} for group in names] == [{0}, {1}, {2}]
    assert sorted(name for group in names for name in group) == sorted(
        n for n, _ in trained[0].named_parameters()
    )


def test_a_process_opens_its_own_files_only(tmp_path, build, trained):
    path = save_sharded(tmp_path, [trained] * K, state())
    for file in FILES:
        if "2-of-3" not in file:
            (path / file).unlink()
    heads = "heads-3-of-3.safetensors"  # without a tensor: which is looked at, since it costs nothing
    with pytest.raises(BadRun, match=f"{path / heads} is damaged or missing"):
        in_own_process(build, path, 1)
    save_sharded(tmp_path / "again", [trained] * K, state())
    shutil.copy(tmp_path / "again/epoch-0001" / heads, path)
    shutil.copy(tmp_path / "again/epoch-0001/optimizer-2-of-3.safetensors", path)
    process, _ = in_own_process(build, path, 1)
    assert_same_state(*trained, *process)
    for stage in (0, 2):
        with pytest.raises(BadRun, match=rf"model-{stage + 1}-of-3.safetensors is damaged or missing"):
            in_own_process(build, path, stage)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_before_the_first_step_and_without_heads(tmp_path, build, name):
    local = build(objective=EndToEnd(), cuts=None)
    path = save_checkpoint(tmp_path, local, optimizer_of(local, name), state(0))
    other = build(seed=1, objective=EndToEnd(), cuts=None)
    optimizer = optimizer_of(other, name)
    load_checkpoint(path, other, optimizer)
    assert torch.equal(local.model[0][0].weight, other.model[0][0].weight)
    step(other, optimizer)


def test_shards_before_the_first_step(tmp_path, build):
    local, other = build(), build(seed=1)
    path = save_sharded(tmp_path, [(local, optimizer_of(local))] * K, state(0))
    optimizer = optimizer_of(other)
    load_checkpoint(path, other, optimizer)
    assert not optimizer.state
    assert all(torch.equal(v, local.state_dict()[n]) for n, v in other.state_dict().items())


def test_only_some_parameters_were_stepped(tmp_path, build):
    local, other = build(), build(seed=1)
    optimizer, restored = optimizer_of(local), optimizer_of(other)
    local.model[5].weight.grad = torch.ones(3, 6)
    optimizer.step()
    load_checkpoint(save_sharded(tmp_path, [(local, optimizer)] * K, state()), other, restored)
    assert [p is other.model[5].weight for p in restored.state] == [True]
    assert_same_entries(optimizer.state[local.model[5].weight], restored.state[other.model[5].weight])


class Named(nn.Module):
    """Parameters whose names begin with others' names, and are called as an optimizer's state is."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        names = ("w", "w_2", "step", "step_2", "exp_avg", "exp_avg_sq")
        self.model = nn.ModuleDict({"1": nn.Linear(2, 2), "11": nn.Linear(2, 2), "exp_avg_": nn.Linear(2, 2)})
        for name in names:
            self.model.register_parameter(name, nn.Parameter(torch.randn(2)))
        self.model["1"].register_parameter("weight_2", nn.Parameter(torch.randn(())))
        self.heads = nn.ModuleList()


def test_names_that_begin_alike_are_told_apart(tmp_path):
    local, other = Named(0), Named(1)
    optimizer, restored = optimizer_of(local, "adamw"), optimizer_of(other, "adamw")
    for times, parameter in enumerate(local.parameters(), start=1):
        parameter.grad = torch.full_like(parameter, float(times))
    optimizer.step()
    names = sorted(local.state_dict())
    halves = (names[::2], names[1::2])
    found = [
        write_shard(tmp_path, local, optimizer, state(), shard=f"{k}-of-2", names=half)
        for k, half in enumerate(halves, start=1)
    ]
    load_checkpoint(publish(tmp_path, state(), found), other, restored)
    assert len({values["exp_avg"].mean().item() for values in restored.state.values()}) == len(names)
    assert_same_state(local, optimizer, other, restored)


def test_groups_keep_their_own_settings(tmp_path, build):
    def optimizer_with_two_groups(local):
        groups = [{"params": local.model.parameters(), "lr": 0.5}, {"params": local.heads.parameters()}]
        return torch.optim.SGD(groups, lr=0.1)

    local, other = build(), build(seed=1)
    optimizer, restored = optimizer_with_two_groups(local), optimizer_with_two_groups(other)
    optimizer.param_groups[1]["lr"] = 0.25
    path = save_sharded(tmp_path, [(local, optimizer)] * K, state())
    load_checkpoint(path, other, restored)
    assert [group["lr"] for group in restored.param_groups] == [0.5, 0.25]
    with pytest.raises(BadRun, match="optimizer belongs to another network"):
        load_checkpoint(path, other, optimizer_of(other))


def test_restored_state_is_the_optimizers_own(tmp_path, build):
    """Changing what was restored changes neither the file nor what is restored next."""
    local = build()
    optimizer = optimizer_of(local, "adamw")
    step(local, optimizer)
    path = save_checkpoint(tmp_path, local, optimizer, state())
    before = {file: file.read_bytes() for file in path.iterdir()}
    for _ in range(2):
        other = build(seed=1)
        restored = optimizer_of(other, "adamw")
        load_checkpoint(path, other, restored)
        assert_same_state(local, optimizer, other, restored)
        for values in restored.state.values():
            assert len({value.untyped_storage().data_ptr() for value in values.values()}) == len(values)
            assert all(v.untyped_storage().nbytes() == v.nbytes for v in values.values())
            for value in values.values():
                value.fill_(9)
    assert before == {file: file.read_bytes() for file in path.iterdir()}


def test_the_network_alone_is_enough_for_evaluation(tmp_path, build, trained):
    path = save_checkpoint(tmp_path, *trained, state())
    model = build(seed=1).model
    assert load_model(path, model) == state()
    assert all(torch.equal(v, model.state_dict()[n]) for n, v in trained[0].model.state_dict().items())


def test_the_network_alone_from_many_files(tmp_path, build, trained):
    path = save_sharded(tmp_path, [trained] * K, state(2, step=7))
    for file in path.glob("[ho]*.safetensors"):
        file.unlink()
    model = build(seed=1).model
    assert load_model(path, model) == state(2, step=7)
    assert all(torch.equal(v, model.state_dict()[n]) for n, v in trained[0].model.state_dict().items())


def test_no_file_can_execute_code(tmp_path, trained):
    path = save_checkpoint(tmp_path, *trained, state())
    names = sorted(file.name for file in path.iterdir())
    assert names == ["heads.safetensors", "model.safetensors", "optimizer.safetensors", "state.json"]
    files = json.loads((path / "state.json").read_text())["files"]
    assert sorted(files) == names[:3] and all(len(entry["sha256"]) == 64 for entry in files.values())


def test_the_last_two_are_kept(tmp_path, trained):
    for epoch in range(1, 5):
        save_checkpoint(tmp_path, *trained, state(epoch))
    assert [path.name for path in checkpoints(tmp_path)] == ["epoch-0003", "epoch-0004"]
    save_checkpoint(tmp_path, *trained, state(5), keep=3)
    assert [path.name for path in checkpoints(tmp_path)] == ["epoch-0003", "epoch-0004", "epoch-0005"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0003", "epoch-0004", "epoch-0005"]


def test_the_best_one_is_kept_besides(tmp_path, trained):
    for epoch in range(1, 6):
        save_checkpoint(tmp_path, *trained, state(epoch), keep=1, spare=["epoch-0002"])
    assert [path.name for path in checkpoints(tmp_path)] == ["epoch-0002", "epoch-0005"]
    save_sharded(tmp_path, [trained] * K, state(6), keep=1, spare=["epoch-0005"])
    assert [path.name for path in checkpoints(tmp_path)] == ["epoch-0005", "epoch-0006"]


def test_the_middle_of_an_epoch_has_its_place(tmp_path, trained):
    for epoch, done in ((1, 0), (0, 90), (1, 900), (1, 20), (0, 1000), (2, 0)):
        save_checkpoint(tmp_path, *trained, state(epoch, step=done), keep=99)
    found = [path.name for path in checkpoints(tmp_path)]
    assert found == [
        *("epoch-0000-step-000090", "epoch-0000-step-001000", "epoch-0001"),
        *("epoch-0001-step-000020", "epoch-0001-step-000900", "epoch-0002"),
    ]
    assert found == sorted(path.name for path in tmp_path.iterdir())
    save_checkpoint(tmp_path, *trained, state(2, step=5), keep=3)
    expected = ["epoch-0001-step-000900", "epoch-0002", "epoch-0002-step-000005"]
    assert [path.name for path in checkpoints(tmp_path)] == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == expected


def test_sums_of_an_unfinished_epoch_come_back(tmp_path, build, trained):
    totals = {"losses": [{"total": 1 / 3}], "counts": [7.0, 12.0], "count": 12}
    written = Checkpoint(3, 12.5, {"cuts": ["0"]}, step=120, totals=totals)
    path = save_sharded(tmp_path, [trained] * K, written)
    assert path.name == "epoch-0003-step-000120"
    other = build(seed=1)
    assert load_checkpoint(path, other, optimizer_of(other)) == written


def test_folders_with_other_names_are_left_alone(tmp_path, trained):
    path = save_checkpoint(tmp_path, *trained, state(1))
    shutil.copytree(path, tmp_path / "epoch-0001-mine")
    for epoch in (2, 3):
        save_checkpoint(tmp_path, *trained, state(epoch), keep=1)
    assert [path.name for path in checkpoints(tmp_path)] == ["epoch-0003"]
    assert (tmp_path / "epoch-0001-mine/model.safetensors").is_file()


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_byte_in_any_shard_is_found(tmp_path, build, trained, file):
    path = save_sharded(tmp_path, [trained] * K, state())
    content = (path / file).read_bytes()
    for position in (0, len(content) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[position] ^= 1
        (path / file).write_bytes(damaged)
        other = build(seed=1)
        before = {name: value.clone() for name, value in other.state_dict().items()}
        with pytest.raises(BadRun, match=rf"{path / file} is damaged or missing; delete {path}"):
            load_checkpoint(path, other, optimizer_of(other))
        assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_a_damaged_byte_in_the_state_is_found(tmp_path, trained):
    file = save_checkpoint(tmp_path, *trained, state()) / "state.json"
    content = file.read_bytes()
    for position in range(0, len(content), 13):
        damaged = bytearray(content)
        damaged[position] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(BadRun, match=f"{file.parent}.* (cannot be read|is damaged|has a|is incomplete)"):
            load_model(file.parent, trained[0].model)
    file.write_bytes(content)
    load_model(file.parent, trained[0].model)


def test_an_unfinished_checkpoint_is_never_listed(tmp_path, trained):
    good = save_sharded(tmp_path, [trained] * K, state(1))
    shards = write_shards(tmp_path, [trained] * K, state(2))
    assert checkpoints(tmp_path) == [good]
    (tmp_path / ".epoch-0002.partial/heads-2-of-3.safetensors").unlink()
    with pytest.raises(BadRun, match=r"epoch-0002.partial is incomplete: got no heads-2-of-3.safetensors"):
        publish(tmp_path, state(2), shards)
    assert checkpoints(tmp_path) == [good]
    remove_partial(tmp_path)
    assert list(tmp_path.iterdir()) == [good]
    with pytest.raises(BadRun, match="is incomplete"):
        publish(tmp_path, state(2), shards)


@pytest.mark.parametrize(
    ("missing", "message"), [(0, r"no model\.0\.0\.bias, .* and 4 more"), (2, r"no model\.2\.0\.bias, ")]
)
def test_a_process_that_was_left_out_is_noticed(tmp_path, build, trained, missing, message):
    shards = write_shards(tmp_path, [trained] * K, state())
    path = publish(tmp_path, state(), [shard for k, shard in enumerate(shards) if k != missing])
    other = build(seed=1)
    with pytest.raises(BadRun, match=rf"the checkpoint {path} belongs to another network: got {message}"):
        load_checkpoint(path, other, optimizer_of(other))
    in_own_process(build, path, 1)
    with pytest.raises(BadRun, match=rf"belongs to another network: got {message}"):
        in_own_process(build, path, missing)


def test_a_buffer_that_two_modules_read_may_be_in_two_files(tmp_path, build, trained):
    shared = "model.1.1.running_mean"
    sets = [names_of(trained[0], k) | {shared} for k in range(K)]
    shards = [
        write_shard(tmp_path, *trained, state(), shard=f"{k + 1}-of-{K}", names=names)
        for k, names in enumerate(sets)
    ]
    path = publish(tmp_path, state(), shards)
    other = build(seed=1)
    restored = optimizer_of(other)
    load_checkpoint(path, other, restored)
    assert_same_state(*trained, other, restored)
    for stage in range(K):
        assert_same_state(*trained, *in_own_process(build, path, stage)[0])


def test_a_shard_leaves_the_files_of_others_alone(tmp_path, trained):
    one = write_shard(tmp_path, *trained, state(), shard="1-of-3", names=names_of(trained[0], 0))
    before = {file: file.read_bytes() for file in (tmp_path / ".epoch-0001.partial").iterdir()}
    assert sorted(file.name for file in before) == sorted(one["files"])
    write_shard(tmp_path, *trained, state(), shard="2-of-3", names=names_of(trained[0], 1))
    assert before == {file: file.read_bytes() for file in before}


def test_files_of_a_killed_run_are_not_published(tmp_path, trained):
    names = names_of(trained[0], 1)
    write_shard(tmp_path, *trained, state(), shard="2-of-2", names=names)
    path = save_sharded(tmp_path, [trained] * K, state())
    assert sorted(file.name for file in path.iterdir()) == [*FILES, "state.json"]


def test_all_is_on_the_disk_before_the_name_is(tmp_path, trained, monkeypatch):
    old = save_checkpoint(tmp_path, *trained, state(0))
    events = []
    fsync, replace, rmtree = os.fsync, os.replace, shutil.rmtree
    monkeypatch.setattr("os.fsync", lambda fd: (events.append(os.fstat(fd).st_ino), fsync(fd)))
    monkeypatch.setattr("os.replace", lambda *paths: (events.append(paths), replace(*paths)))
    monkeypatch.setattr(
        "shutil.rmtree", lambda path, **_: path.exists() and (events.append(path), rmtree(path))
    )
    path = save_sharded(tmp_path, [trained] * K, state(), keep=1)
    renamed = events.index((tmp_path / ".epoch-0001.partial", path))
    *files, folder = events[:renamed]
    assert sorted(files) == sorted(file.stat().st_ino for file in path.iterdir())
    assert folder == path.stat().st_ino
    here, hidden = tmp_path.stat().st_ino, tmp_path / ".epoch-0000.removed.partial"
    assert events[renamed + 1 :] == [here, (old, hidden), here, hidden]


@pytest.mark.parametrize("epoch", [1, 2])
def test_half_of_what_is_removed_has_no_name(tmp_path, build, trained, monkeypatch, epoch):
    """Killed while the older checkpoint, or the one that is replaced, is deleted."""

    def killed(path, **_):
        if path.exists():
            next(path.glob("model*")).unlink()
            raise KeyboardInterrupt

    save_checkpoint(tmp_path, *trained, state(1))
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, *trained, state(epoch), keep=1)
    assert [path.name for path in checkpoints(tmp_path)] == [f"epoch-000{epoch}"]
    other = build(seed=1)
    restored = optimizer_of(other)
    load_checkpoint(checkpoints(tmp_path)[0], other, restored)
    assert_same_state(*trained, other, restored)
    remove_partial(tmp_path)
    assert list(tmp_path.iterdir()) == checkpoints(tmp_path)


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
        (b'{"epoch": 1}', "has an earlier format; use the version that wrote it, or start anew"),
        (b'{"epoch": 1, "format": 9}', "has a format that this version does not know; use"),
        (
            b'{"format": 2, "epoch": 1, "best_test_error": 1, "totals": {}}',
            "is incomplete: got no checksum, configuration, files, optimizer, step",
        ),
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
    message = rf"the checkpoint {path} belongs to another network: got "
    with pytest.raises(
        BadRun,
        match=rf"{message}no heads.0.heads.task.layers.2.bias, .* and 1 more but also heads.* more; use",
    ):
        load_checkpoint(path, other, optimizer_of(other))
    with pytest.raises(BadRun, match=rf"{message}no model.bias, model.weight but also model.0.0.bias, "):
        load_model(path, nn.Linear(3, 3))
    other = build()
    other.model[5] = nn.Linear(6, 4)
    with pytest.raises(BadRun, match=rf"{message}model.5.weight of shape \[3, 6\] instead of \[4, 6\]; use"):
        load_model(path, other.model)


def test_what_is_unknown_is_refused_on_meta_too(tmp_path, build, trained):
    """A process without the heads of a stage need not hold them, but its network has to have them."""
    path = save_sharded(tmp_path, [trained] * K, state())
    other = keep_only(build(objective=Greedy()), 2)
    with pytest.raises(BadRun, match=r"another network: got also heads.0.heads.reconstruction.layers.0.bias"):
        load_checkpoint(path, other, optimizer_of(other))


def test_another_optimizer_is_refused(tmp_path, trained):
    path = save_checkpoint(tmp_path, *trained, state())
    fewer = torch.optim.SGD(trained[0].model.parameters(), lr=0.1)
    with pytest.raises(BadRun, match="the checkpoint's optimizer belongs to another network"):
        load_checkpoint(path, trained[0], fewer)
    foreign = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    with pytest.raises(BadRun, match="the optimizer holds a parameter that the network does not have"):
        save_checkpoint(tmp_path, trained[0], foreign, state(2))


@pytest.mark.parametrize("moment", ["second file", "state", "rename"])
def test_an_error_while_writing_leaves_the_old_checkpoint(tmp_path, build, trained, monkeypatch, moment):
    good = save_checkpoint(tmp_path, *trained, state(1))
    weight = trained[0].model[0][0].weight.detach().clone()
    step(*trained, seed=1)
    with monkeypatch.context() as patch:
        break_writing(patch, moment)
        with pytest.raises((OSError, BadRun), match="disk full"):
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
    save_file, fsync = safetensors.torch.save_file, os.fsync

    def save(content, file):
        if moment == "second file" and next(calls) == 1:
            raise OSError("disk full")
        save_file(content, file)

    def fail(*_):
        raise OSError("disk full")

    def sync(descriptor):
        if next(calls) == 3:  # after three files of tensors
            raise OSError("disk full")
        fsync(descriptor)

    patch.setattr("safetensors.torch.save_file", save)
    if moment == "state":
        patch.setattr("os.fsync", sync)
    if moment == "rename":
        patch.setattr("os.replace", fail)


def test_a_full_disk_is_explained_and_leaves_the_checkpoints_before_it(tmp_path, trained, monkeypatch):
    local, optimizer = trained
    first = save_checkpoint(tmp_path, local, optimizer, state(1))

    def refuse(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", refuse)
    with pytest.raises(BadRun, match=r"cannot be written: got I/O error: No space left .*; free space"):
        save_checkpoint(tmp_path, local, optimizer, state(2))
    assert checkpoints(tmp_path) == [first]


class Disk:
    """Refuses the `last`-th thing that is asked of it, and everything after it, as a full disk does."""

    def __init__(self, patch, last):
        import safetensors.torch

        self.left, self.asked = last, []
        patch.setattr("safetensors.torch.save_file", self.guarded("file", safetensors.torch.save_file))
        patch.setattr("os.fsync", self.guarded("fsync", os.fsync))
        patch.setattr("os.replace", self.guarded("rename", os.replace))

    def guarded(self, name, real):
        def ask(*arguments):
            self.asked.append(name)
            self.left -= 1
            if self.left <= 0:
                if name == "file":  # as much of it as there was room for
                    arguments[1].write_bytes(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments)

        return ask


# what a checkpoint asks of the disk: three files of tensors, state, folder, its name, the folder above
ORDER_OF_A_SAVE = [*("file", "fsync") * 3, "fsync", "fsync", "rename", "fsync"]


@pytest.mark.parametrize("refused", range(len(ORDER_OF_A_SAVE)))
def test_wherever_the_disk_gets_full_nothing_half_written_stays(
    tmp_path, build, trained, monkeypatch, refused
):
    good = save_checkpoint(tmp_path, *trained, state(1))
    before = {file.name: file.read_bytes() for file in good.iterdir()}
    step(*trained, seed=1)
    with monkeypatch.context() as patch:
        disk = Disk(patch, last=refused + 1)
        with pytest.raises(BadRun, match=r"cannot be written: got .*No space left on device; free space"):
            save_checkpoint(tmp_path, *trained, state(2))
    assert disk.asked == ORDER_OF_A_SAVE[: refused + 1]
    has_its_name = refused > ORDER_OF_A_SAVE.index("rename")
    left = [good, tmp_path / "epoch-0002"] if has_its_name else [good]
    assert sorted(tmp_path.iterdir()) == checkpoints(tmp_path) == left
    assert {file.name: file.read_bytes() for file in good.iterdir()} == before
    path = save_checkpoint(tmp_path, *trained, state(2))
    other = build(seed=1)
    assert load_checkpoint(path, other, optimizer_of(other)) == state(2)


def test_a_disk_that_is_full_for_one_process_of_several(tmp_path, trained, monkeypatch):
    good = save_checkpoint(tmp_path, *trained, state(1))
    names = names_of(trained[0], 0)
    with monkeypatch.context() as patch:
        Disk(patch, last=3)
        with pytest.raises(BadRun, match=r"heads-1-of-3.safetensors cannot be written"):
            write_shard(tmp_path, *trained, state(2), shard="1-of-3", names=names)
    assert not (tmp_path / ".epoch-0002.partial/heads-1-of-3.safetensors").exists()
    assert checkpoints(tmp_path) == [good]
    path = save_sharded(tmp_path, [trained] * K, state(2))
    assert sorted(file.name for file in path.iterdir()) == [*FILES, "state.json"]


def test_what_stood_under_a_name_comes_back_if_it_cannot_be_given_anew(tmp_path, build, trained, monkeypatch):
    good = save_checkpoint(tmp_path, *trained, state(1))
    before = {file.name: file.read_bytes() for file in good.iterdir()}
    step(*trained, seed=1)
    real, calls = os.replace, []

    def second_fails(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        real(*paths)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", second_fails)
        with pytest.raises(BadRun, match="Input/output error"):
            save_checkpoint(tmp_path, *trained, state(1))
    assert list(tmp_path.iterdir()) == [good]
    assert {file.name: file.read_bytes() for file in good.iterdir()} == before
