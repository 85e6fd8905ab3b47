import copy
import shutil
from collections import namedtuple
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

import infopro
from infopro.data import batches
from infopro.data._seeds import counter_generator
from infopro.data.digits_on_photos import digits_on_photos
from infopro.engines.feature_cache import DiskTooSmall
from infopro.errors import BadConfiguration, BadInput, NotYetSupported
from infopro.objectives import DGL, EndToEnd, Greedy, InfoPro
from infopro.random_streams import stage_seed, step_seed
from infopro.training import Diverged, evaluate_data, make_optimizer, make_schedule, train
from infopro.training.cached import ModuleEpoch, train_cached
from infopro.types import Batch

CPU = torch.device("cpu")
EPOCHS, BATCH, SEED = 3, 16, 5
SCHEDULE = make_schedule("cosine", base=0.1, epochs=EPOCHS, warmup_epochs=1)


def sgd(parameters):
    return make_optimizer("sgd", parameters, learning_rate=0.1, weight_decay=1e-4)


def run(local, data, folder, **options):
    settings = {
        "make_optimizer": sgd,
        "schedule": SCHEDULE,
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "seed": SEED,
        "device": CPU,
        "cache_folder": folder,
    }
    return train_cached(local, data, **{**settings, **options})


def block(in_channels, channels):
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.Dropout(0.2)
    )


class SkipNet(nn.Module):
    """What the first block gives reaches the third one too, and a table that belongs to no image."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = block(3, 4), block(4, 6), block(10, 6)
        self.classifier = nn.Linear(6, 3)

    def forward(self, x):
        first = self.first(x)
        table = torch.arange(8, device=x.device) / 8
        return self.last(self.second(first * (1 + table)), first, table)

    def last(self, second, first, table):
        together = torch.cat([second, first], dim=1) + table
        return self.classifier(self.third(together).mean(dim=(2, 3)))

    def pieces(self):
        """The three modules as plain functions of what crosses each cut; what is trained comes last."""
        table = torch.arange(8) / 8
        return [
            ([self.first], lambda x: (self.first(x),)),
            ([self.second], lambda first: (first, self.second(first * (1 + table)))),
            ([self.third, self.classifier], lambda first, second: (self.last(second, first, table),)),
        ]


def skip_model(data, seed=0, objective=None):
    torch.manual_seed(seed)
    model = SkipNet().to(memory_format=torch.channels_last)
    task = infopro.tasks.Classification(num_classes=3, mean=data.mean, std=data.std)
    return infopro.localize(
        model, torch.rand(2, 3, 8, 8), task=task, objective=objective or InfoPro(), cuts=["first", "second"]
    )


def read(data, epoch, *, augmented=True):
    found = batches(
        data.train,
        batch_size=BATCH,
        mean=data.mean,
        std=data.std,
        augmentation=data.augmentation if augmented else None,
        shuffle=True,
        seed=SEED,
        epoch=epoch,
        device=CPU,
    )
    for images, targets in found:
        yield images.contiguous(memory_format=torch.channels_last), targets


def channels_last(tensor):
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def reference_batches(local, data, index, epoch, views, precision):
    """Module `index`'s batches of an epoch, computed anew from the images by the frozen modules before it."""
    if index == 0:
        for images, targets in read(data, epoch):
            yield (images,), images, targets
        return
    by_position = {}
    view = (epoch - 1) % max(views, 1)
    for images, targets in read(data, view + 1, augmented=views > 0):
        features = (images,)
        with torch.no_grad(), torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
            for modules, piece in local.model.pieces()[:index]:
                for module in modules:
                    module.eval()
                features = piece(*features)
        positions = list(order_of(data, view + 1)[len(by_position) : len(by_position) + len(images)])
        for row, position in enumerate(positions):
            by_position[int(position)] = [t[row] for t in (*features, images, targets)]
    seen = 0
    for images, _ in read(data, epoch):
        positions = order_of(data, epoch)[seen : seen + len(images)]
        seen += len(images)
        rows = [by_position[int(position)] for position in positions]
        *features, images, targets = (channels_last(torch.stack(t)) for t in zip(*rows, strict=True))
        yield tuple(features), images, targets


def order_of(data, epoch):
    return torch.randperm(len(data.train), generator=counter_generator("order", SEED, epoch))


def reference_training(local, data, views, precision):
    """Slow and obvious: no cache, no recording; module after module."""
    for index, (modules, piece) in enumerate(local.model.pieces()):
        objective = local.stages[index].objective
        parameters = [p for module in modules for p in module.parameters()]
        optimizer = sgd([*parameters, *objective.parameters()])
        for epoch in range(1, EPOCHS + 1):
            steps = -(-len(data.train) // BATCH)
            found = reference_batches(local, data, index, epoch, views, precision)
            for step, (features, images, targets) in enumerate(found):
                for module in (*modules, objective):
                    module.train()
                optimizer.param_groups[0]["lr"] = SCHEDULE(epoch, step / steps)
                optimizer.zero_grad()
                torch.manual_seed(stage_seed(step_seed(SEED, epoch, step), index))
                with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
                    losses = objective(piece(*features)[-1], Batch(images, targets))
                losses["total"].backward()
                optimizer.step()


def assert_same_state(left, right):
    left, right = left.state_dict(), right.state_dict()
    assert list(left) == list(right)
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


@pytest.mark.parametrize(
    ("objective", "views", "precision"),
    [
        (InfoPro(), 0, torch.float32),
        (InfoPro(), 1, torch.float32),
        (InfoPro(), 3, torch.float32),
        (InfoPro(task_loss="contrast"), 2, torch.float32),
        (Greedy(), 1, torch.float32),
        (InfoPro(), 2, torch.bfloat16),
    ],
    ids=["no augmentation", "one view", "three views", "contrast", "greedy", "bfloat16"],
)
def test_training_on_the_cache_equals_training_on_recomputed_features(
    tmp_path, data, objective, views, precision
):
    local, reference = skip_model(data, objective=objective), skip_model(data, objective=objective)
    run(local, data, tmp_path, views=views, precision=precision)
    reference_training(reference, data, views, precision)
    assert_same_state(local, reference)


def test_views_matter(tmp_path, data):
    states = []
    for views in (0, 1, 2):
        local = skip_model(data)
        run(local, data, tmp_path, views=views)
        states.append(local.state_dict())
    assert all(torch.equal(states[0]["model.first.0.weight"], s["model.first.0.weight"]) for s in states)
    weights = [state["model.third.0.weight"] for state in states]
    assert not any(torch.equal(weights[a], weights[b]) for a, b in [(0, 1), (0, 2), (1, 2)])


@pytest.mark.parametrize("limit", [None, 0.05])
def test_module_1_is_what_training_all_together_makes_of_it(tmp_path, data, build, limit):
    local, together = build(), build()
    epochs = []
    run(local, data, tmp_path, on_module_epoch=epochs.append, clip_gradients=limit)
    settings = {"schedule": SCHEDULE, "epochs": EPOCHS, "batch_size": BATCH, "seed": SEED, "device": CPU}
    settings["clip_gradients"] = limit
    records = train(together, data, optimizer=sgd(together.parameters()), **settings)
    assert_same_state(local.model[0], together.model[0])
    assert_same_state(local.heads[0], together.heads[0])
    first = [epoch for epoch in epochs if epoch.module == 1]
    assert [epoch.losses for epoch in first] == [record.losses[0] for record in records]
    assert [epoch.learning_rate for epoch in first] == [record.learning_rate for record in records]
    later = local.state_dict()["model.1.0.weight"], together.state_dict()["model.1.0.weight"]
    assert not torch.equal(*later)  # which saw the features of a module in training
    measured = [epoch.losses.get("gradient_norm", 0.0) for epoch in epochs]
    assert min(measured) > 0.05 if limit else max(measured) == 0.0


def numbers(record):
    """All of a record but what a clock says."""
    return {n: value for n, value in asdict(record).items() if n not in ("seconds", "images_per_second")}


def test_one_module_is_ordinary_training(tmp_path, data, build):
    local, ordinary = build(objective=EndToEnd(), cuts=None), build(objective=EndToEnd(), cuts=None)
    settings = {"schedule": SCHEDULE, "epochs": EPOCHS, "batch_size": BATCH, "seed": SEED, "device": CPU}
    expected = train(ordinary, data, optimizer=sgd(ordinary.parameters()), **settings)
    found = run(local, data, tmp_path)
    assert [numbers(record) for record in found] == [numbers(record) for record in expected]
    assert_same_state(local, ordinary)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("objective", [DGL(), InfoPro(task_loss="contrast")], ids=["logits", "no logits"])
def test_the_log_has_every_epoch_of_every_module(tmp_path, data, objective):
    local = skip_model(data, objective=objective)
    modules, networks, evaluations, head_errors = [], [], [], []

    def on_module_epoch(epoch):
        modules.append(epoch)
        if epoch.module == 1 and isinstance(objective, DGL):
            head = local.heads[0].heads["task"]
            plain = nn.Sequential(local.model.first, head)
            head_errors.append(evaluate_data(plain, local.task, data, device=CPU).error)

    def on_epoch(record):
        networks.append(record)
        evaluations.append(evaluate_data(local.model, local.task, data, device=CPU))

    returned = run(local, data, tmp_path, on_module_epoch=on_module_epoch, on_epoch=on_epoch)
    assert [(e.module, e.epoch) for e in modules] == [(k, e) for k in (1, 2, 3) for e in (1, 2, 3)]
    assert all(isinstance(e, ModuleEpoch) and e.seconds > 0 and e.images_per_second > 0 for e in modules)
    if isinstance(objective, DGL):
        assert [e.test_error for e in modules[:3]] == head_errors
        assert all(0 <= e.test_error <= 100 for e in modules)
    else:
        assert [e.test_error for e in modules[:6]] == [None] * 6

    assert returned == networks and [record.epoch for record in networks] == [1, 2, 3]
    assert [(r.test_error, r.test_loss) for r in networks] == [(e.error, e.loss) for e in evaluations]
    assert [e.test_error for e in modules[6:]] == [r.test_error for r in networks]
    assert networks[-1].best_test_error == min(r.test_error for r in networks)
    for record, last in zip(networks, modules[6:], strict=True):
        assert record.losses == (modules[2].losses, modules[5].losses, last.losses)
        assert 0 <= record.train_error <= 100


def test_a_finished_module_does_not_change(tmp_path, data):
    local = skip_model(data)
    before = {name: value.clone() for name, value in local.state_dict().items()}
    seen = []

    def on_module_epoch(epoch):
        seen.append((epoch.module, {n: v.clone() for n, v in local.state_dict().items()}))

    run(local, data, tmp_path, on_module_epoch=on_module_epoch)
    owners = {
        "model.first": 1,
        "heads.0": 1,
        "model.second": 2,
        "heads.1": 2,
        "model.third": 3,
        "model.class": 3,
    }
    final = local.state_dict()
    for module, state in seen:
        for name, value in state.items():
            owner = next(owner for start, owner in owners.items() if name.startswith(start))
            expected = before[name] if owner > module else final[name] if owner < module else value
            assert torch.equal(value, expected), (module, name)
    assert not torch.equal(before["model.third.0.weight"], final["model.third.0.weight"])


def test_the_network_stays_the_callers_own(tmp_path, data):
    local = skip_model(data)
    model, keys = local.model, list(local.model.state_dict())
    parameters = [id(p) for p in model.parameters()]
    run(local, data, tmp_path)
    assert local.model is model and list(model.state_dict()) == keys
    assert [id(p) for p in model.parameters()] == parameters
    assert all(p.grad is None for p in local.parameters())
    assert model.first[0].weight.is_contiguous(memory_format=torch.channels_last)


def watch_places(local, monkeypatch):
    """Where every tensor was moved to last, by name; "cpu:0" plays the accelerator."""
    places = {}
    move = nn.Module.to

    def to(module, *args, **kwargs):
        names = {id(t): n for n, t in (*local.named_parameters(), *local.named_buffers())}
        everyones = {id(t) for t in local.task.buffers()}  # mean and std go wherever a module goes
        for tensor in (*module.parameters(), *module.buffers()):
            if id(tensor) not in everyones:
                places[names[id(tensor)]] = str(args[0])
        return move(module, *args, **kwargs)

    monkeypatch.setattr(nn.Module, "to", to)
    return places


def on_accelerator(places):
    """The modules any of whose tensors, or of their heads', are there."""
    owners = {"first": 0, "0": 0, "second": 1, "1": 1, "third": 2, "classifier": 2}
    there = [name.split(".")[1] for name, place in places.items() if place == "cpu:0"]
    return {owners[name] for name in there}


def test_only_one_module_is_on_the_device(tmp_path, data, monkeypatch):
    local = skip_model(data)
    places, seen = watch_places(local, monkeypatch), []
    evaluated = []
    for block_index, name in enumerate(["first", "second", "third"]):

        def hook(module, args, block_index=block_index):
            if len(args[0]) > 5:  # not the recording, which runs on the CPU
                assert on_accelerator(places) == {block_index}
                evaluated.append(not module.training)

        getattr(local.model, name).register_forward_pre_hook(hook)

    def on_step(module, epoch, step):
        seen.append((module - 1, on_accelerator(places)))

    run(local, data, tmp_path, on_step=on_step, device=torch.device("cpu:0"))
    assert len(seen) == 3 * EPOCHS * 3 and all(there == {index} for index, there in seen)
    assert {True, False} == set(evaluated)
    assert set(places.values()) == {"cpu:0"}  # in the end all of it


def test_after_an_error_all_of_the_network_is_on_the_cpu(tmp_path, data, monkeypatch):
    local = skip_model(data)
    places = watch_places(local, monkeypatch)

    def fail(module, epoch, step):
        if module == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(local, data, tmp_path, on_step=fail, device=torch.device("cpu:0"))
    assert set(places.values()) == {"cpu"}


def test_one_cache_is_kept_at_a_time(tmp_path, data):
    seen = []

    def on_step(module, epoch, step):
        folders = sorted(path.name for path in tmp_path.iterdir())
        seen.append((module, folders))

    run(skip_model(data), data, tmp_path, on_step=on_step)
    expected = {1: [], 2: ["features-for-module-02"], 3: ["features-for-module-03"]}
    assert all(folders == expected[module] for module, folders in seen)
    assert list(tmp_path.iterdir()) == []
    run(skip_model(data), data, tmp_path, keep_cache=True)
    assert [path.name for path in tmp_path.iterdir()] == ["features-for-module-03"]


@pytest.mark.parametrize(
    ("objective", "cached", "spared"),
    [(InfoPro(), {2}, {3}), (Greedy(), set(), {2, 3})],
    ids=["infopro", "greedy"],
)
def test_images_are_cached_where_a_later_objective_reads_them(tmp_path, data, objective, cached, spared):
    def on_step(module, epoch, step):
        for number in cached | spared:
            folder = tmp_path / f"features-for-module-{number:02d}"
            if module == number:
                assert (folder / "train" / "images.bin").exists() == (number in cached)
                assert not (folder / "test" / "images.bin").exists()

    run(skip_model(data, objective=objective), data, tmp_path, on_step=on_step)


def test_a_cache_of_other_weights_is_not_used(tmp_path, data):
    run(skip_model(data, seed=1), data, tmp_path / "used", keep_cache=True)
    local, expected = skip_model(data, seed=2), skip_model(data, seed=2)
    start = {"first_module": 3, "finished_losses": [{}, {}]}
    run(local, data, tmp_path / "used", **start)
    run(expected, data, tmp_path / "new", **start)
    assert_same_state(local, expected)


class Snapshots:
    """What a caller saves after every epoch of every module, and the caches besides."""

    def __init__(self, local, folder, copies):
        self.local, self.folder, self.copies = local, folder, copies
        self.optimizer, self.saved, self.epochs, self.records = None, {}, [], []

    def make_optimizer(self, parameters):
        self.optimizer = sgd(parameters)
        return self.optimizer

    def on_module_epoch(self, epoch):
        self.epochs.append(epoch)
        state = copy.deepcopy((self.local.state_dict(), self.optimizer.state_dict()))
        self.saved[epoch.module, epoch.epoch] = state
        if epoch.epoch == 1 and epoch.module > 1:
            shutil.copytree(self.folder, self.copies / str(epoch.module))

    def options(self):
        return {
            "make_optimizer": self.make_optimizer,
            "on_module_epoch": self.on_module_epoch,
            "on_epoch": self.records.append,
        }


def calls_of(modules):
    """Which of these run on whole batches, recording left out."""
    called = set()
    for number, module in enumerate(modules, start=1):
        module.register_forward_pre_hook(
            lambda m, args, n=number: called.add(n) if len(args[0]) > 5 else None
        )
    return called


@pytest.fixture
def undisturbed(tmp_path, data):
    """A whole run, and all that was saved on its way."""
    snapshots = Snapshots(skip_model(data), tmp_path / "whole", tmp_path / "copies")
    run(snapshots.local, data, snapshots.folder, views=2, **snapshots.options())
    return snapshots


def resume(undisturbed, data, folder, *, module, epoch, last, **options):
    """Go on with another network object from what was saved after the epoch `last` = (module, epoch)."""
    local = skip_model(data, seed=9)
    weights, optimizer_state = undisturbed.saved[last]
    local.load_state_dict(weights)
    torch.manual_seed(1234)
    optimizers = []

    def restored(parameters):
        optimizers.append(sgd(parameters))
        if len(optimizers) == 1 and last[0] == module:
            optimizers[0].load_state_dict(copy.deepcopy(optimizer_state))
        return optimizers[-1]

    done = [e for e in undisturbed.epochs if (e.module, e.epoch) <= last]
    best = [r.best_test_error for r in undisturbed.records if module == 3 and r.epoch < epoch]
    settings = {
        "first_module": module,
        "first_epoch": epoch,
        "finished_losses": [e.losses for e in done if e.epoch == EPOCHS and e.module < module],
        "best_test_error": min(best, default=100.0),
        "make_optimizer": restored,
        "views": 2,
    }
    epochs, records = [], []
    called = calls_of([local.model.first, local.model.second, local.model.third])
    callbacks = {"on_module_epoch": epochs.append, "on_epoch": records.append}
    run(local, data, folder, **settings, **callbacks, **options)
    assert_same_state(local, undisturbed.local)
    assert [numbers(e) for e in epochs] == [numbers(e) for e in undisturbed.epochs[len(done) :]]
    expected = [r for r in undisturbed.records if module < 3 or r.epoch >= epoch]
    assert [numbers(r) for r in records] == [numbers(r) for r in expected]
    return called


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path, data, undisturbed):
    new = [tmp_path / f"new-{number}" for number in range(6)]
    copies = undisturbed.copies
    # in the middle of a module, and between two
    assert resume(undisturbed, data, new[0], module=1, epoch=2, last=(1, 1)) == {1, 2, 3}
    assert resume(undisturbed, data, copies / "2", module=2, epoch=3, last=(2, 2)) == {2, 3}
    assert resume(undisturbed, data, copies / "3", module=3, epoch=2, last=(3, 1)) == {3}
    # without its cache: built from the images, module after module
    assert resume(undisturbed, data, new[1], module=3, epoch=2, last=(3, 1)) == {1, 2, 3}
    assert resume(undisturbed, data, new[2], module=2, epoch=1, last=(1, 3)) == {1, 2, 3}


def test_a_missing_cache_is_built_from_the_one_before(tmp_path, data, undisturbed):
    copies = undisturbed.copies
    interrupted = copies / "2" / "features-for-module-03" / "train"
    interrupted.mkdir(parents=True)
    (interrupted / "value-0.bin").write_bytes(b"half")
    assert resume(undisturbed, data, copies / "2", module=3, epoch=2, last=(3, 1)) == {2, 3}


def test_a_damaged_cache_is_built_again(data, undisturbed):
    folder = undisturbed.copies / "3"
    (folder / "features-for-module-03" / "test" / "manifest.json").write_text("{")
    assert resume(undisturbed, data, folder, module=3, epoch=3, last=(3, 2)) == {1, 2, 3}


def test_caches_that_would_not_fit_are_refused_before_any_training(tmp_path, data, monkeypatch):
    sizes = {}

    def on_step(module, epoch, step):
        sizes[module] = sum(file.stat().st_size for file in tmp_path.rglob("*.bin"))

    run(skip_model(data), data, tmp_path, on_step=on_step)
    needed = sizes[2] + sizes[3]
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, needed - 1))
    steps = []
    local = skip_model(data)
    with pytest.raises(DiskTooSmall, match=f"got {needed - 1:,} bytes free; allowed: {needed:,} or more"):
        run(local, data, tmp_path / "new", on_step=lambda *step: steps.append(step))
    assert steps == [] and not (tmp_path / "new").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, needed))
    run(local, data, tmp_path / "new")


class Variant(SkipNet):
    """A network with one peculiarity."""

    def __init__(self, what):
        super().__init__()
        self.what = what
        self.other = block(6, 6)
        if what == "tied":
            self.second[0], self.second[1], self.third[0] = (
                nn.Conv2d(4, 4, 1),
                nn.BatchNorm2d(4),
                nn.Conv2d(8, 6, 1),
            )
            self.second[1].weight = self.first[1].weight

    def forward(self, x):
        if self.what == "branch" and (x > 9).any():
            x = x / 2
        first = self.first(x)
        rows = first.flatten(2).permute(2, 0, 1) if self.what == "rows first" else first
        second = self.second(first)
        if self.what == "other block" and not self.training:
            second = self.other(second)
        if self.what == "rows first":
            rows = rows.permute(1, 2, 0).reshape(first.shape)
        if self.what == "image again":
            return self.last(second, rows, x[:, :1])
        if self.what == "no skip in eval" and not self.training:
            rows = second[:, :4]
        return self.last(second, rows, 0)


def variant(data, what, **options):
    torch.manual_seed(0)
    task = infopro.tasks.Classification(num_classes=3, mean=data.mean, std=data.std)
    cuts = ["first", "second"]
    return infopro.localize(
        Variant(what), torch.rand(2, 3, 8, 8), task=task, objective=Greedy(), cuts=cuts, **options
    )


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("live", "run together only"),
        ("tied", r"share a parameter.*first\.1\.weight in modules 1 and 2"),
        ("branch", "branches on the values of its inputs"),
        ("no skip in eval", "module 3 reads other tensors in train mode than in eval mode"),
        ("other block", r"module 3 has other blocks in train mode.*other\.0\.weight"),
        ("rows first", "module 3 reads a tensor whose first dimension is not the batch"),
    ],
)
def test_what_cannot_be_trained_module_by_module_is_refused_in_one_line(tmp_path, data, what, message):
    local = variant(data, what, **({"record": False} if what == "live" else {}))
    with pytest.raises(NotYetSupported, match=message) as error:
        run(local, data, tmp_path / "new")
    assert "\n" not in str(error.value) and not (tmp_path / "new").exists()


def test_a_network_may_read_its_image_again(tmp_path, data):
    local = variant(data, "image again")
    records = run(local, data, tmp_path)
    found = evaluate_data(local.model, local.task, data, device=CPU)
    assert (records[-1].test_error, records[-1].test_loss) == (found.error, found.loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": -1}, "views: got -1; allowed: 0 or more"),
        ({"epochs": 0}, "epochs: got 0; allowed: 1 or more"),
        ({"first_module": 4, "finished_losses": [{}] * 3}, "first module: got 4; allowed: 1 to 3"),
        ({"first_epoch": 4}, "first epoch: got 4; allowed: 1 to 3"),
        ({"first_module": 2}, "losses of finished modules: got 0; allowed: 1"),
        ({"views": -2, "first_epoch": 0}, "views: got -2.*also first epoch: got 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, data, build, options, message):
    with pytest.raises(BadConfiguration, match=message):
        run(build(), data, tmp_path, **options)


def test_images_that_do_not_fit_are_refused(tmp_path, data, build):
    with pytest.raises(BadInput, match="images of another size"):
        run(build(), replace(data, image_shape=(3, 9, 9)), tmp_path)
    with pytest.raises(BadInput, match="cannot be reconstructed"):
        run(build(), replace(data, mean=(7.0, 7.0, 7.0)), tmp_path)


def test_divergence_names_the_module(tmp_path, data):
    with pytest.raises(Diverged, match="loss of module 2 is not finite in epoch 2"):
        run(
            skip_model(data, objective=Greedy()),
            data,
            tmp_path,
            schedule=lambda epoch, done: 1e30 if epoch == 2 else 0.01,
            first_module=2,
            finished_losses=[{}],
        )


def test_weights_that_are_not_finite_are_not_handed_on(tmp_path, data, build):
    local, epochs = build(objective=Greedy()), []

    def spoil(module, epoch, step):
        if (module, epoch, step) == (1, 2, 3):
            with torch.no_grad():
                next(local.stages[0].parameters())[0] = float("inf")  # as the last step's gradient may

    with pytest.raises(Diverged, match="the weights of module 1 are not finite in epoch 2"):
        run(local, data, tmp_path, on_step=spoil, on_module_epoch=epochs.append)
    assert [epoch.epoch for epoch in epochs] == [1]


def small_network():
    def convolution(in_channels, channels, stride):
        layer = nn.Conv2d(in_channels, channels, 3, padding=1, stride=stride)
        return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.ReLU())

    blocks = convolution(3, 16, 2), convolution(16, 32, 2), convolution(32, 32, 1)
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10))


def test_learns_digits_on_photos(tmp_path):
    data = digits_on_photos(train_size=1500, test_size=200)
    task = infopro.tasks.Classification(num_classes=10, mean=data.mean, std=data.std)
    torch.manual_seed(0)
    example = torch.zeros(2, 3, 32, 32)
    local = infopro.localize(small_network(), example, objective=Greedy(), task=task, cuts=["0"])
    options = {"batch_size": 25, "epochs": 5, "views": 2, "seed": 0}
    schedule = make_schedule("cosine", base=0.1, epochs=5, warmup_epochs=1)
    records = run(local, data, tmp_path, schedule=schedule, **options)
    assert records[-1].test_error < 75, "chance is 90 %"
