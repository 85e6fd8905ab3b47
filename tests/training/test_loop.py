import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from infopro.data import Augmentation
from infopro.engines import OneProcess
from infopro.errors import BadInput
from infopro.objectives import EndToEnd, Greedy, InfoPro
from infopro.training import (
    Checkpoint,
    Diverged,
    Position,
    RunFolder,
    load_checkpoint,
    make_optimizer,
    make_schedule,
    save_checkpoint,
    train,
)

EPOCHS = 4
CURVE = Path(__file__).parent / "loss_curve.json"


def run(local, data, optimizer, *, epochs=EPOCHS, **options):
    settings = {
        "schedule": make_schedule("cosine", base=0.1, epochs=EPOCHS, warmup_epochs=1),
        "batch_size": 16,
        "seed": 3,
        "device": torch.device("cpu"),
    }
    return train(local, data, optimizer=optimizer, epochs=epochs, **{**settings, **options})


def optimizer_of(local, name="sgd"):
    return make_optimizer(name, local.parameters(), learning_rate=0.1, weight_decay=1e-4)


def numbers(record):
    """All of a record but what a clock says."""
    return {
        name: value for name, value in asdict(record).items() if name not in ("seconds", "images_per_second")
    }


@pytest.mark.parametrize(
    ("objective", "cuts"),
    [(EndToEnd(), None), (Greedy(), ["0", "1"]), (InfoPro(task_loss="contrast"), ["0", "1"])],
    ids=["end-to-end", "greedy", "infopro"],
)
@pytest.mark.parametrize(
    ("name", "precision"), [("sgd", torch.float32), ("adamw", torch.float32), ("sgd", torch.bfloat16)]
)
def test_stopping_after_each_epoch_changes_nothing(tmp_path, data, build, objective, cuts, name, precision):
    whole = build(objective=objective, cuts=cuts)
    whole_optimizer = optimizer_of(whole, name)
    expected = run(whole, data, whole_optimizer, precision=precision)

    folder = RunFolder.create(tmp_path / "run", configuration={}, record={})
    for epoch in range(1, EPOCHS + 1):
        local = build(
            seed=epoch - 1, objective=objective, cuts=cuts
        )  # the first: as above; then resumed ones
        optimizer = optimizer_of(local, name)
        if epoch > 1:
            assert load_checkpoint(folder.last_checkpoint(), local, optimizer).epoch == epoch - 1
        torch.manual_seed(1000 + epoch)
        done = folder.log()
        best = done[-1].best_test_error if done else 100.0
        start = Position(epoch - 1, best_test_error=best)
        options = {"start": start, "epochs": epoch, "precision": precision}
        (record,) = run(local, data, optimizer, **options)
        folder.append(record)
        state = Checkpoint(epoch, record.best_test_error, {})
        save_checkpoint(folder.checkpoint_folder, local, optimizer, state)

    assert [numbers(r) for r in folder.log()] == [numbers(r) for r in expected]
    for key, value in whole.state_dict().items():
        assert torch.equal(value, local.state_dict()[key]), key
    for left, right in zip(whole.parameters(), local.parameters(), strict=True):
        ours, theirs = whole_optimizer.state[left], optimizer.state[right]
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(torch.as_tensor(ours[k]), torch.as_tensor(theirs[k])) for k in ours)


def test_another_seed_is_another_run(data, build):
    records = []
    for seed in (3, 4):
        local = build()
        records.append(run(local, data, optimizer_of(local), epochs=1, seed=seed))
    assert numbers(records[0][0]) != numbers(records[1][0])


@pytest.mark.parametrize("seed", [0, 2**40])
def test_every_step_has_a_random_stream_of_its_own(data, build, seed):
    local = build(objective=Greedy())
    seen = []
    backward = local.backward

    def keep(images, targets, **options):
        out = backward(images, targets, **options)
        seen.append(torch.get_rng_state())
        return out

    local.backward = keep
    run(local, data, optimizer_of(local), epochs=2, seed=seed)
    assert len({state.numpy().tobytes() for state in seen}) == len(seen) == 6


def test_records_say_what_happened(data, build):
    local = build()
    steps, epochs = [], []
    records = run(
        local,
        data,
        optimizer_of(local),
        epochs=2,
        on_step=lambda epoch, step: steps.append((epoch, step)),
        on_epoch=epochs.append,
    )
    assert steps == [(e, s) for e in (1, 2) for s in (1, 2, 3)] and epochs == records
    assert [r.epoch for r in records] == [1, 2]
    for record in records:
        assert [list(losses) for losses in record.losses] == [["reconstruction", "task", "total"]] * 2 + [
            ["task", "total"]
        ]
        assert record.seconds > 0
        assert record.images_per_second == pytest.approx(40 / record.seconds)
    schedule = make_schedule("cosine", base=0.1, epochs=EPOCHS, warmup_epochs=1)
    assert [r.learning_rate for r in records] == [schedule(e, 2 / 3) for e in (1, 2)]


def test_the_best_error_is_the_lowest_so_far(data, build):
    local = build()
    records = run(local, data, optimizer_of(local), start=Position(best_test_error=30.0))
    lowest = 30.0
    for record in records:
        lowest = min(lowest, record.test_error)
        assert record.best_test_error == lowest


def test_training_learns(data, build):
    local = build()
    plain = replace(data, augmentation=Augmentation())
    schedule = make_schedule("cosine", base=0.05, epochs=12, warmup_epochs=1)
    records = run(local, plain, optimizer_of(local), epochs=12, schedule=schedule)
    assert records[-1].test_error <= 10.0 < records[0].test_error
    for name in ("reconstruction", "task", "total"):
        assert records[-1].losses[0][name] < 0.9 * records[0].losses[0][name]


def test_divergence_stops_and_names_the_module(data, build):
    local = build(objective=Greedy())
    schedule = make_schedule("constant", base=1e6, epochs=EPOCHS, warmup_epochs=0)
    finished = []
    with pytest.raises(
        Diverged, match=r"the \w+ loss of module \d is not finite in epoch \d, step \d: got (nan|inf)"
    ):
        run(local, data, optimizer_of(local), schedule=schedule, on_epoch=finished.append)
    assert len(finished) < EPOCHS and all(abs(r.losses[-1]["total"]) < float("inf") for r in finished)


def test_only_the_module_that_diverged_is_named(data, build):
    local = build(objective=Greedy())
    with torch.no_grad():
        local.stages[1].heads["task"].layers[2].bias.fill_(float("nan"))
    with pytest.raises(Diverged, match="the task loss of module 2 is not finite in epoch 1, step 1: got nan"):
        run(local, data, optimizer_of(local))


def test_a_wrong_normalisation_is_refused_before_the_first_step(data, build):
    local = build()
    before = local.model[0][0].weight.detach().clone()
    with pytest.raises(BadInput, match="with mean and std undone they leave"):
        run(local, replace(data, mean=(5.0, 5.0, 5.0)), optimizer_of(local))
    assert torch.equal(local.model[0][0].weight, before)


def curve(data, build):
    """Every loss of 20 steps of InfoPro, without dropout: its mask follows the memory layout of a machine."""
    local = build()
    for module in local.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    found = []
    backward = local.backward

    def keep(images, targets, **options):
        out = backward(images, targets, **options)
        found.append([{name: float(value) for name, value in losses.items()} for losses in out.losses])
        return out

    local.backward = keep
    schedule = make_schedule("paper", base=0.05, epochs=7, warmup_epochs=2)
    run(local, data, optimizer_of(local), epochs=7, schedule=schedule)
    return found[:20]


def test_the_loss_curve_is_the_committed_one(data, build):
    """What should not change the numbers does not. To renew the curve, delete the file and run this twice."""
    found = curve(data, build)
    if not CURVE.exists():
        CURVE.write_text(json.dumps(found, indent=1) + "\n")
        pytest.fail(f"wrote {CURVE.name}: look at it, then commit it")
    expected = json.loads(CURVE.read_text())
    assert len(expected) == len(found) == 20
    for step, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        for left, right in zip(ours, theirs, strict=True):
            assert left == pytest.approx(right, rel=1e-4), f"step {step}"


def test_an_optimizer_of_another_model_is_refused(data, build):
    local, other = build(), build(seed=1)
    with pytest.raises(BadInput, match="parameters that are not trained here: got"):
        run(local, data, optimizer_of(other))


def test_an_engine_of_another_model_is_refused(data, build):
    local = build()
    with pytest.raises(BadInput, match="the engine runs another model"):
        run(local, data, optimizer_of(local), engine=OneProcess(build(seed=1)))


def test_asked_to_stop_it_ends_between_two_steps_and_goes_on_bit_for_bit(data, build):
    whole = build()
    expected = run(whole, data, optimizer_of(whole))
    local, steps, saved = build(), [], []
    optimizer = optimizer_of(local)
    engine = OneProcess(local, stop=lambda: len(steps) == 4)
    records = run(
        local, data, optimizer, engine=engine, save=saved.append, on_step=lambda *step: steps.append(step)
    )
    assert steps == [(1, 1), (1, 2), (1, 3), (2, 1)]
    assert engine.stopped and [(p.epoch, p.step) for p in saved] == [(1, 0), (1, 1)]
    records += run(local, data, optimizer, start=saved[-1])
    assert [numbers(r) for r in records] == [numbers(r) for r in expected]
    for key, value in whole.state_dict().items():
        assert torch.equal(value, local.state_dict()[key]), key
