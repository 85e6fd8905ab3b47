"""Numbers gone wrong: found in their own step, named, never saved; or the step is left out altogether."""

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from infopro.engines import OneProcess
from infopro.errors import BadInput
from infopro.objectives import Greedy
from infopro.training import Diverged, make_optimizer, make_schedule, train
from infopro.training.divergence import LossWatch, require_finite_weights
from infopro.training.updates import MOST_IN_A_ROW

NAN, INF = float("nan"), float("inf")
WAITING = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select"}


def run(local, data, *, epochs=2, optimizer="sgd", engine=None, **options):
    steps = make_optimizer(optimizer, local.parameters(), learning_rate=0.1, weight_decay=1e-4)
    records = train(
        local,
        data,
        optimizer=steps,
        engine=engine,
        schedule=make_schedule("constant", base=0.05, epochs=epochs, warmup_epochs=0),
        epochs=epochs,
        batch_size=16,
        seed=3,
        device=torch.device("cpu"),
        **options,
    )
    return records, steps


def spoil(local, *, at, module=1, what="loss", value=NAN):
    """Make the loss, or a gradient, of one module in the given steps (counted through from 0) not finite."""
    objective, count = local.stages[module].objective, iter(range(999))
    real, backward = objective.forward, local.backward

    def forward(features, batch):
        losses, step = real(features, batch), next(count)
        if step in at and what == "loss":
            losses = {name: loss * torch.tensor(value) for name, loss in losses.items()}
        return losses

    def whole(*arguments, **options):
        out = backward(*arguments, **options)
        if what == "gradient" and next(count) in at:
            next(iter(local.stages[module].parameters())).grad[0] = value
        return out

    if what == "loss":
        objective.forward = forward
    else:
        local.backward = whole


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_loss_is_caught_in_its_own_step(data, build, value):
    local, done, saved = build(objective=Greedy()), [], []
    run(build(objective=Greedy()), data, epochs=1)  # the first batch was looked at: not what is tested here
    spoil(local, at={4}, value=value)
    with pytest.raises(Diverged) as error:
        run(local, data, on_step=lambda *step: done.append(step), save=saved.append)
    assert str(error.value).startswith(
        f"the task loss of module 2 is not finite in epoch 2, step 2: got {value}; lower --learning-rate"
    )
    assert error.value.exit_status == 2
    assert done == [(1, 1), (1, 2), (1, 3), (2, 1)], "the steps before it"
    assert [position.epoch for position in saved] == [1], "what was saved before stays the last"


def test_a_gradient_is_caught_at_the_latest_before_it_is_saved(data, build):
    local, saved = build(objective=Greedy()), []
    spoil(local, at={2}, what="gradient")  # the last step of the epoch
    with pytest.raises(Diverged, match=r"the weights of module 2 are not finite in epoch 1: got part\."):
        run(local, data, save=saved.append)
    assert saved == []


def test_a_gradient_is_caught_in_its_own_step_where_norms_are_measured(data, build):
    local, done = build(objective=Greedy()), []
    spoil(local, at={1}, what="gradient", value=INF)
    with pytest.raises(Diverged, match="the gradient norm of module 2 is not finite in epoch 1, step 2: got"):
        run(local, data, clip_gradients=1.0, on_step=lambda *step: done.append(step))
    assert done == [(1, 1)]


class Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_looking_reads_no_value_of_a_tensor():
    watch = LossWatch(range(2))
    losses = [{"task": torch.tensor(0.5), "total": torch.tensor(1.5)}, {"total": torch.tensor(2.0)}]
    with Calls() as calls:
        watch.add(losses, epoch=1, step=0)
        watch.finish()
    assert calls.names and not WAITING & calls.names


class Event:
    """As much of a CUDA event as is asked of one."""

    def __init__(self):
        self.passed, self.waited = False, False

    def record(self):
        pass

    def query(self):
        return self.passed

    def synchronize(self):
        self.waited = self.passed = True


@pytest.fixture
def device(monkeypatch):
    """A watch's view of a GPU: its events, in order."""
    events = []

    def event():
        events.append(Event())
        return events[-1]

    real = torch.stack

    class Stacked:
        is_cuda, dtype = True, torch.float64

        def __init__(self, values):
            self.values = real(values)
            self.shape = self.values.shape

    def empty(shape, **_):
        class Host:
            def copy_(self, stacked, non_blocking):
                assert non_blocking
                return stacked.values

        return Host()

    monkeypatch.setattr("infopro.training.divergence.torch.stack", Stacked)
    monkeypatch.setattr("infopro.training.divergence.torch.empty", empty)
    monkeypatch.setattr("infopro.training.divergence.torch.cuda.Event", event)
    return events


def test_a_gpus_losses_are_read_when_they_are_there_and_not_waited_for(device):
    watch = LossWatch([0], most=3)
    for step, value in enumerate([1.0, NAN, 1.0]):
        watch.add([{"total": torch.tensor(value)}], epoch=5, step=step)
    assert not any(event.waited for event in device), "no step has waited"
    device[0].passed = True
    watch.add([{"total": torch.tensor(1.0)}], epoch=5, step=3)
    assert not device[1].waited
    device[1].passed = True
    with pytest.raises(
        Diverged, match="the total loss of module 1 is not finite in epoch 5, step 2: got nan"
    ):
        watch.add([{"total": torch.tensor(1.0)}], epoch=5, step=4)


def test_a_host_too_far_ahead_waits_for_the_oldest_step_only(device):
    watch = LossWatch([0], most=3)
    for step in range(5):
        watch.add([{"total": torch.tensor(1.0)}], epoch=1, step=step)
    assert [event.waited for event in device] == [True, True, False, False, False]
    watch.finish()
    assert all(event.waited for event in device)


def test_at_the_end_all_are_read(device):
    watch = LossWatch([0])
    watch.add([{"total": torch.tensor(INF)}], epoch=1, step=0)
    with pytest.raises(Diverged, match="epoch 1, step 1: got inf"):
        watch.finish()


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_left_out_never_was(data, build, optimizer, what):
    """Weights, buffers and optimizer state after a bad step are those from before it."""
    local, states = build(objective=Greedy()), []
    spoil(local, at={1}, what=what)

    def note(epoch, step):
        moments = [values for values in steps_of[0].state.values()]
        copied = [{k: torch.as_tensor(v).clone() for k, v in values.items()} for values in moments]
        states.append(({n: v.clone() for n, v in local.state_dict().items()}, copied))

    steps_of = []
    real = make_optimizer

    def remembered(*arguments, **options):
        steps_of.append(real(*arguments, **options))
        return steps_of[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "make_optimizer", remembered)
        records, _ = run(local, data, epochs=1, optimizer=optimizer, on_divergence="skip", on_step=note)
    (first, moments), (second, after), (third, _) = states
    assert same(first, second) and all(same(a, b) for a, b in zip(moments, after, strict=True))
    assert not same(second, third)
    (record,) = records
    assert record.extra["skipped_steps"] == 1
    assert all(math.isfinite(value) for losses in record.losses for value in losses.values())
    assert record.losses[0]["gradient_norm"] > 0


def test_batch_norm_forgets_a_step_that_was_left_out(data, build):
    """Images that are not finite would stay in its running statistics for ever."""
    local = build(objective=Greedy())
    backward, count = local.backward, iter(range(99))

    def once_spoilt(images, *arguments, **options):
        if next(count) == 1:
            images = images.clone()
            images[0, 0, 0, 0] = NAN
        return backward(images, *arguments, **options)

    local.backward = once_spoilt
    records, _ = run(local, data, epochs=1, on_divergence="skip")
    assert records[0].extra["skipped_steps"] == 1 and math.isfinite(records[0].test_loss)
    assert all(value.isfinite().all() for value in local.state_dict().values())


@pytest.mark.parametrize("options", [{"on_divergence": "skip"}, {"clip_gradients": 1e9}])
def test_watching_changes_nothing_where_all_is_well(data, build, options):
    plain, watched = build(), build()
    (expected, _), (found, _) = run(plain, data), run(watched, data, **options)
    assert same(plain.state_dict(), watched.state_dict())
    for left, right in zip(expected, found, strict=True):
        assert left.test_error == right.test_error and right.extra == {}
        for ours, theirs in zip(left.losses, right.losses, strict=True):
            assert ours == {name: value for name, value in theirs.items() if name != "gradient_norm"}


def test_a_run_that_leaves_out_everything_ends(data, build):
    local, saved = build(objective=Greedy()), []
    spoil(local, at=set(range(99)))
    with pytest.raises(Diverged, match="every step of epoch 1 was left out"):
        run(local, data, on_divergence="skip", save=saved.append)
    assert saved == []
    other = build(objective=Greedy())
    spoil(other, at=set(range(1, 99)))
    message = f"{MOST_IN_A_ROW} steps in a row were not finite and left out, the last in epoch 1, step 11"
    with pytest.raises(Diverged, match=message):
        run_small(other, data)


def run_small(local, data):
    """Batches of two images: more steps in an epoch."""
    steps = make_optimizer("sgd", local.parameters(), learning_rate=0.1, weight_decay=1e-4)
    return train(
        local,
        data,
        optimizer=steps,
        schedule=make_schedule("constant", base=0.05, epochs=1, warmup_epochs=0),
        epochs=1,
        batch_size=2,
        seed=3,
        device=torch.device("cpu"),
        on_divergence="skip",
    )


def test_gradients_are_clipped_module_by_module_as_torch_does(data, build):
    """Compared with torch's clip_grad_norm_ on each module by hand, on the same gradients."""
    local, reference = build(), build()
    limit, seen = 0.05, []
    backward = reference.backward

    def clipped(*arguments, **options):
        out = backward(*arguments, **options)
        norms = [nn.utils.clip_grad_norm_(stage.parameters(), limit) for stage in reference.stages]
        seen.append([float(norm) for norm in norms])
        return out

    reference.backward = clipped
    run(reference, data, epochs=1)
    records, _ = run(local, data, epochs=1, clip_gradients=limit)
    assert same(local.state_dict(), reference.state_dict())
    assert all(max(norms) > limit for norms in zip(*seen, strict=True)), (
        "something was clipped in every module"
    )
    sizes = (16, 16, 8)
    for index, losses in enumerate(records[0].losses):
        mean = sum(size * norms[index] for size, norms in zip(sizes, seen, strict=True)) / sum(sizes)
        assert losses["gradient_norm"] == pytest.approx(mean)
    unclipped = build()
    run(unclipped, data, epochs=1)
    assert not same(local.state_dict(), unclipped.state_dict())


def test_engines_that_step_by_themselves_are_refused(data, build):
    for options in ({"clip_gradients": 1.0}, {"on_divergence": "skip"}):
        local = build()
        steps = make_optimizer("sgd", local.parameters(), learning_rate=0.1, weight_decay=0.0)
        with pytest.raises(BadInput, match="this engine steps it; make the engine without an optimizer"):
            train(
                local,
                data,
                optimizer=steps,
                engine=OneProcess(local, optimizer=steps),
                schedule=make_schedule("constant", base=0.05, epochs=1, warmup_epochs=0),
                epochs=1,
                batch_size=16,
                seed=3,
                device=torch.device("cpu"),
                **options,
            )


def test_weights_are_looked_at_module_by_module():
    stages = [(index, nn.Linear(2, 2)) for index in range(3)]
    require_finite_weights(stages, epoch=4)
    require_finite_weights([], epoch=4)
    with torch.no_grad():
        stages[1][1].bias[0] = INF
    with pytest.raises(Diverged, match="the weights of module 2 are not finite in epoch 4: got bias; lower"):
        require_finite_weights(stages, epoch=4)
