"""Going back to the last checkpoint: to the same bits as by hand, resumed or not, and not for ever."""

from dataclasses import replace

import pytest
import torch

from infopro import recipes
from infopro.data import digits_on_photos
from infopro.errors import BadRun
from infopro.recipes._reloading import RELOADS_FILE, Reload, read_reloads
from infopro.recipes._running import train_once
from infopro.training import Diverged, RunFolder, checkpoints, make_schedule

NAN = float("nan")
STEPS = 2  # of an epoch


@pytest.fixture(scope="module")
def data():
    return digits_on_photos(train_size=32, test_size=16)


def session_of(data, *, stop=lambda: False, **options):
    options = {"epochs": 4, "on_divergence": "reload", "average_weights": 0.5, **options}
    config = recipes.RunConfig(
        model="demo_resnet",
        num_modules=2,
        objective="greedy",
        batch_size=16,
        learning_rate=0.05,
        schedule="cosine",
        warmup_epochs=0,
        **options,
    )
    return recipes.prepare(config, data, device=torch.device("cpu"), stop=stop)


def spoil(session, *, at, value=NAN):
    """The second module's loss in these steps, counted through over all attempts, is not finite."""
    objective, count = session.local.stages[1].objective, iter(range(999))
    real = objective.forward

    def forward(features, batch):
        factor = value if next(count) in at else 1.0
        return {name: loss * factor for name, loss in real(features, batch).items()}

    objective.forward = forward


def trained(session, path, *, resume=False, **options):
    folder, checkpoint = recipes.open_run(session, path, name="a", resume=resume, data_dir=None)
    start = recipes.restore(session, folder, checkpoint)
    return recipes.train_run(session, folder, start=start, **options)


def same_end(left, right):
    """Weights, heads, averages, optimizer state: every file of the last checkpoints."""
    ends = [sorted(RunFolder.open(path).last_checkpoint().glob("*.safetensors")) for path in (left, right)]
    names = [[file.name for file in files] for files in ends]
    contents = [[file.read_bytes() for file in files] for files in ends]
    return names[0] == names[1] and len(names[0]) > 2 and contents[0] == contents[1]


def log_of(path):
    return [replace(record, seconds=0.0, images_per_second=0.0) for record in RunFolder.open(path).log()]


@pytest.fixture(scope="module")
def disturbed(data, tmp_path_factory):
    """Spoilt in the second step of epoch 3; what was said."""
    path, said = tmp_path_factory.mktemp("disturbed") / "run", []
    session = session_of(data)
    spoil(session, at={2 * STEPS + 1})
    records = trained(session, path, say=said.append)
    return path, said, records


def test_it_goes_on_from_the_last_checkpoint_at_half_the_rate(data, disturbed, tmp_path):
    path, said, records = disturbed
    cause = "greedy: the task loss of module 2 is not finite in epoch 3, step 2: got nan"
    assert read_reloads(path) == [Reload(2, 0, 0.5, cause)]
    assert said == [f"{cause}: back to epoch 2, on with 0.5 of the learning rate (1 of 3 times)"]
    assert records == RunFolder.open(path).log()
    assert [record.epoch for record in records] == [1, 2, 3, 4]

    by_hand = tmp_path / "by_hand"
    stopped_after(2, data, by_hand)
    session = session_of(data)
    folder, checkpoint = recipes.open_run(session, by_hand, name="a", resume=True, data_dir=None)
    start = recipes.restore(session, folder, checkpoint)
    train_once(session, folder, start=start, rate_factor=0.5)
    assert same_end(path, by_hand) and log_of(path) == log_of(by_hand)
    rates = make_schedule("cosine", base=0.05, epochs=4, warmup_epochs=0)
    assert [record.learning_rate for record in records] == [
        factor * rates(epoch, 0.5) for epoch, factor in ((1, 1.0), (2, 1.0), (3, 0.5), (4, 0.5))
    ]


def stopped_after(epochs, data, path, *, step=0, spoilt=()):
    """A run that is asked to stop after some epochs, and steps of the next one."""
    asked, places = [], []
    session = session_of(data, stop=lambda: bool(asked))
    spoil(session, at=set(spoilt))

    def count(epoch, done):
        places.append((epoch, done))
        times = 2 if spoilt and epochs == 2 else 1  # epoch 3 is begun twice
        if (epoch - 1, done) == (epochs, step) and places.count((epoch, done)) == times:
            asked.append(True)

    def end(record):
        if record.epoch == epochs and step == 0:
            asked.append(True)

    trained(session, path, on_step=count, on_epoch=end)
    assert session.engine.stopped


@pytest.mark.parametrize(("epochs", "step"), [(2, 1), (3, 0), (3, 1)])
def test_a_resumed_run_is_the_undisturbed_one(data, disturbed, tmp_path, epochs, step):
    path, *_ = disturbed
    run = tmp_path / "run"
    stopped_after(epochs, data, run, step=step, spoilt={2 * STEPS + 1})
    assert read_reloads(run) == read_reloads(path), "it was stopped after it had gone back"
    trained(session_of(data), run, resume=True)
    assert same_end(run, path) and log_of(run) == log_of(path)
    assert read_reloads(run) == read_reloads(path)


def test_a_run_killed_as_it_goes_back_has_gone_back(data, disturbed, tmp_path):
    path, *_ = disturbed
    run = tmp_path / "run"
    session = session_of(data)
    spoil(session, at={2 * STEPS + 1})

    def kill(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(session, run, say=kill)
    with (run / RELOADS_FILE).open("a") as stream:
        stream.write('{"epoch": 2, "st')  # and had begun to do so once more
    trained(session_of(data), run, resume=True)
    assert same_end(run, path) and log_of(run) == log_of(path)
    assert read_reloads(run) == read_reloads(path)


def test_a_run_resumed_from_before_has_not_gone_back(data, disturbed, tmp_path):
    """Where the newer checkpoints are damaged, the rate is that of the place it goes on from."""
    path, *_ = disturbed
    run = tmp_path / "run"
    session = session_of(data)
    spoil(session, at={2 * STEPS + 1})
    trained(session, run, keep=4)
    for checkpoint in checkpoints(run / "checkpoints"):
        if checkpoint.name > "epoch-0001":
            (checkpoint / "model.safetensors").write_bytes(b"")
    trained(session_of(data), run, resume=True)
    assert read_reloads(run) == []
    assert log_of(run)[:2] == log_of(path)[:2]
    rate = log_of(run)[2].learning_rate
    assert rate == 2 * log_of(path)[2].learning_rate, "what made the numbers wrong did not come again"


def test_the_beginning_is_a_place_to_go_back_to(data, tmp_path):
    session, said = session_of(data, epochs=1), []
    weights = {name: value.clone() for name, value in session.local.state_dict().items()}
    spoil(session, at={1})
    (record,) = trained(session, tmp_path / "run", say=said.append)
    assert read_reloads(tmp_path / "run")[0].epoch == 0 and "back to epoch 0" in said[0]
    assert record.learning_rate == pytest.approx(0.5 * 0.025)
    other = session_of(data, epochs=1)
    assert all(torch.equal(value, weights[name]) for name, value in other.local.state_dict().items())
    recipes.fit(other, rate_factor=0.5)
    assert all(
        torch.equal(value, session.local.state_dict()[name])
        for name, value in other.local.state_dict().items()
    )


def test_three_times_is_the_end(data, tmp_path):
    session, said = session_of(data), []
    spoil(session, at={2 * STEPS, *range(2 * STEPS + 1, 99)})
    with pytest.raises(Diverged) as error:
        trained(session, tmp_path / "run", say=said.append)
    assert str(error.value) == (
        "greedy: the task loss of module 2 is not finite in epoch 3, step 1: got nan; the run has gone back "
        "3 times, to 0.125 of its learning rate: look at the data and the settings, and start anew with "
        "another --output"
    )
    assert len(said) == 3
    found = read_reloads(tmp_path / "run")
    assert [(reload.epoch, reload.rate_factor) for reload in found] == [(2, 0.5), (2, 0.25), (2, 0.125)]
    with pytest.raises(Diverged, match="has gone back 3 times"):  # nor is resuming a way around it
        again = session_of(data)
        spoil(again, at={0})
        trained(again, tmp_path / "run", resume=True)


@pytest.mark.parametrize("on_spike", ["warn", "stop", "reload"])
def test_a_loss_that_leaps(data, tmp_path, monkeypatch, on_spike):
    monkeypatch.setattr("infopro.training.spikes.FEWEST", 4)
    monkeypatch.setattr("infopro.training.spikes.IN_A_ROW", 1)
    session, said = session_of(data, on_spike=on_spike, on_divergence="stop", clip_gradients=0.01), []
    spoil(session, at={2 * STEPS + 1}, value=100.0)
    path = tmp_path / "run"
    what = "greedy: the total loss of module 2 leapt in epoch 3, step 2: "
    if on_spike == "stop":
        with pytest.raises(Diverged, match=what):
            trained(session, path, say=said.append)
        assert said == [] and RunFolder.open(path).last_checkpoint().name == "epoch-0002"
        return
    trained(session, path, say=said.append)
    (line,) = said
    assert line.startswith(what)
    if on_spike == "warn":
        assert [record.extra.get("loss_spikes", 0) for record in log_of(path)] == [0, 0, 1, 0]
        assert read_reloads(path) == []
    else:
        assert line.endswith(": back to epoch 2, on with 0.5 of the learning rate (1 of 3 times)")
        assert [reload.epoch for reload in read_reloads(path)] == [2]


def test_spikes_alone_go_back_where_only_they_are_to(data, tmp_path):
    session = session_of(data, on_spike="reload", on_divergence="stop")
    spoil(session, at={1})
    with pytest.raises(Diverged, match=r"not finite in epoch 1, step 2: got nan; lower --learning-rate"):
        trained(session, tmp_path / "run")
    assert read_reloads(tmp_path / "run") == []


def test_a_file_of_reloads_that_cannot_be_read(tmp_path):
    (tmp_path / RELOADS_FILE).write_text('{"epoch": 1}\n')
    with pytest.raises(BadRun, match=r"reloads\.jsonl cannot be read: got .*; restore it from a copy"):
        read_reloads(tmp_path)
