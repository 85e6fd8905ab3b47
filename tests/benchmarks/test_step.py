"""The benchmark of one training step: exact methods are exact, and numbers are what they say."""

import sys
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from torch import nn

import infopro

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import step as benchmark
from step_goals import Comparison, comparisons, goals
from step_measure import Step, measure, take_turns
from step_methods import METHODS, compiled, end_to_end
from step_networks import NETWORKS, Network, Setting
from step_page import _sections
from step_plot import _labels, _limits, _overlap, draw
from step_results import Row, append, read, timing


def tiny(*, normalised=False):
    """Eight blocks, so that there are eight segments."""
    layers = [
        nn.Sequential(
            nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6) if normalised else nn.Tanh(), nn.ReLU()
        )
        for _ in range(8)
    ]
    stem = nn.Conv2d(3, 6, 3, padding=1)
    return nn.Sequential(
        stem, nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10)
    )


@cache
def setting(*, dtype=torch.float64, side=8, **options):
    ten = infopro.tasks.Classification(num_classes=10)
    network = Network("tiny", partial(tiny, **options), (3, side, side), ten, batch_size=8)
    return Setting(network, 8, torch.device("cpu"), dtype=dtype)


def stepped(method_setting, build):
    """The network after one step, with the gradients of that step."""
    ready = build(method_setting)
    before = [p.detach().clone() for p in ready.owner.parameters()]
    Step(method_setting, ready)()
    after = list(ready.owner.parameters())
    assert any(not torch.equal(b, a) for b, a in zip(before, after, strict=True))
    network = ready.local.model if ready.local else getattr(ready.owner, "model", ready.owner)
    return dict(network.named_parameters())


def compare(left, right, same):
    assert left.keys() == right.keys()
    return all(same(left[n], right[n]) and same(left[n].grad, right[n].grad) for n in left)


exactly = torch.equal
nearly = partial(torch.allclose, rtol=1e-12, atol=1e-14)
EXACT = [name for name, m in METHODS.items() if m.gradient == "exact" and m.family != "compiled"]
OTHERS = [
    "deep supervision, K = 4",
    "local greedy, K = 2",
    "local InfoPro softmax, K = 4",
    "local DGL, K = 8",
]


@pytest.mark.parametrize("name", EXACT)
def test_exact_methods_are_back_propagation(name):
    one = setting(normalised=True)
    assert compare(stepped(one, METHODS[name].build), stepped(one, end_to_end), exactly)


def test_compilation_is_back_propagation_within_its_budget():
    one, saved = setting(), []
    for budget in (1.0, 0.5):
        ready = compiled(one, budget=budget, backend="aot_eager")
        saved.append(ready.saved(one.images, one.targets))
        assert compare(stepped(one, lambda _, ready=ready: ready), stepped(one, end_to_end), nearly)
    assert saved[1] < 0.8 * saved[0]


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulation_is_back_propagation_but_for_batch_norm(parts):
    build = METHODS[f"accumulation, {parts} parts"].build
    for normalised in (False, True):
        one = setting(normalised=normalised)
        assert compare(stepped(one, build), stepped(one, end_to_end), nearly) is not normalised


@pytest.mark.parametrize("name", OTHERS)
def test_other_methods_are_not_back_propagation(name):
    one = setting()
    assert METHODS[name].gradient != "exact"
    assert not compare(stepped(one, METHODS[name].build), stepped(one, end_to_end), nearly)


def test_deep_supervision_reaches_every_module_from_the_last_loss():
    """With the same heads as the isolated modules; the last module has the same gradient."""
    one = setting()
    together = stepped(one, METHODS["deep supervision, K = 4"].build)
    alone = stepped(one, METHODS["local InfoPro softmax, K = 4"].build)
    assert not torch.allclose(together["0.weight"].grad, alone["0.weight"].grad)
    assert torch.allclose(together["4.weight"].grad, alone["4.weight"].grad)


def footprint(one, name):
    step = Step(one, METHODS[name].build(one))
    step()
    return measure(step, METHODS[name])


def test_memory_and_operations_are_those_of_the_step():
    one = setting(dtype=torch.float32, side=32, normalised=True)
    whole, predicted = footprint(one, "end to end"), METHODS["end to end"].predict(one)
    assert predicted.flops == whole.operations and predicted.saved == (whole.saved_bytes,)
    assert whole.fixed_bytes + whole.saved_bytes < whole.tensor_peak_bytes
    # the allocator's record knows convolutions' workspaces as well, and little else
    assert whole.tensor_peak_bytes <= whole.peak_bytes < 1.05 * whole.tensor_peak_bytes

    segments = footprint(one, "checkpointing, 4 segments")
    assert segments.peak_bytes < 0.7 * whole.peak_bytes
    assert 1.0 < segments.operations / whole.operations < 4 / 3
    halves = footprint(one, "accumulation, 2 parts")
    assert halves.operations == whole.operations and halves.saved_bytes < 0.52 * whole.saved_bytes
    offloaded = footprint(one, "offloading")
    assert offloaded.peak_bytes > 0.9 * whole.peak_bytes  # on a CPU


def test_a_local_step_saves_its_largest_module():
    one = setting(dtype=torch.float32, side=32, normalised=True)
    whole = footprint(one, "end to end")
    greedy, heads = footprint(one, "local greedy, K = 4"), footprint(one, "local InfoPro softmax, K = 4")
    assert greedy.saved_bytes == greedy.saved_bound < whole.saved_bytes / 3
    assert greedy.head_share < 0.01 < heads.head_share
    assert greedy.operations < whole.operations < heads.operations


def test_every_step_has_a_turn_in_every_round():
    taken = []

    class Turn:
        def __init__(self, name):
            self.name = name

        def __call__(self):
            taken.append(self.name)
            return float(len(taken))

        def clear(self):
            pass

    seconds = take_turns({name: Turn(name) for name in "ab"}, rounds=2, warm_up=1)
    assert taken == ["a", "b"] * 3
    assert seconds == {"a": [3.0, 5.0], "b": [4.0, 6.0]}
    columns = timing([3.0, 5.0], [4.0, 5.0], images=8)
    assert (columns["time_ratio_min"], columns["time_ratio"], columns["time_ratio_max"]) == (0.75, 0.875, 1.0)
    assert columns["images_per_second"] == 2.0


def row(method, memory, time, **options):
    known = METHODS[method]
    return Row(
        network="resnet20",
        method=method,
        family=known.family,
        label=known.label,
        gradient=known.gradient,
        kind="measured",
        device="cpu",
        precision="float32",
        batch_size=8,
        num_modules=known.num_modules,
        peak_bytes=memory,
        time_ratio=time,
        time_ratio_min=time,
        time_ratio_max=time,
        **options,
    )


MAIN = "local InfoPro softmax, K = 4"
PAIR = (row("end to end", 1000, 1.0), row("checkpointing, 4 segments", 400, 1.25))


def test_goals_that_are_met():
    both = "local InfoPro softmax, K = 4, checkpointed everything"
    main = row(MAIN, 395, 0.99, head_share=0.1, saved_bytes=104, saved_bound=100)
    found = list(goals(Comparison([*PAIR, main, row(both, 200, 1.4)])))
    assert [met for met, _ in found[:5]] == [True] * 5
    assert "takes 21% less time than checkpointing, 4 segments (40%, 1.25 x)" in found[2][1]


def test_goals_that_are_missed():
    both = "local InfoPro softmax, K = 4, checkpointed everything"
    main = row(MAIN, 410, 1.3, head_share=0.1, saved_bytes=106, saved_bound=100)
    found = list(goals(Comparison([*PAIR, main, row(both, 201, 1.4)])))
    assert [met for met, _ in found[:5]] == [False, True, False, False, False]
    assert "takes 4% more time than checkpointing, 4 segments" in found[2][1]
    dominated = list(goals(Comparison([*PAIR, main])))
    assert [met for met, _ in dominated[:5]] == [False, False, False, False, None]


def test_the_front_has_what_nothing_beats():
    rows = [*PAIR, row("local greedy, K = 2", 500, 0.9), row("offloading", 1000, 1.5), row(MAIN, 400, 1.3)]
    assert [r.method for r, _, _ in Comparison(rows).front] == [
        "checkpointing, 4 segments",
        "local greedy, K = 2",
    ]


def test_what_fails_is_a_row(tmp_path, monkeypatch):
    """A run of the command on a network with too few blocks for K = 16."""
    monkeypatch.setitem(NETWORKS, "resnet20", setting().network)
    file = tmp_path / "step.csv"
    words = ["step.py", "--networks", "resnet20", "--rounds", "1", "--warm-up", "0", "--device", "cpu"]
    words += [
        "--methods",
        "end to end",
        "local greedy, K = [34]",
        "local greedy, K = 16",
        "--output",
        str(file),
    ]
    monkeypatch.setattr(sys, "argv", words)
    benchmark.main()
    rows = read(file)
    assert [bool(r.error) for r in rows] == [False, False, False, True]
    assert "BadSplit" in rows[-1].error and rows[-1].peak_bytes is None
    assert all(r.time_ratio and r.peak_bytes for r in rows[:-1])

    text = "\n".join(_sections(comparisons(rows)))
    assert "did not run: BadSplit" in text and "| local greedy, K = 3 " in text.replace("*", "")
    draw(comparisons(rows)[0], "tiny", tmp_path / "step.png")
    assert (tmp_path / "step.png").stat().st_size > 10_000


def test_rows_survive_the_file_and_the_last_one_counts(tmp_path):
    file, first = tmp_path / "step.csv", row("end to end", 1000, 1.0)
    again = row("end to end", 900, 1.1, head_share=0.5)
    for one in (first, PAIR[1], again):
        append(one, file)
    assert read(file) == [again, PAIR[1]]


def test_labels_keep_apart():
    data = [{"label": str(i), "family": "compiled", "memory": 1.0 + i / 100, "time": 1.0} for i in range(4)]
    placed = _labels(data, [_limits([0.2, 2.0]), _limits([0.5, 2.0])])
    assert len({(p["memory"], p["time"]) for p in placed}) == 4
    assert _overlap((0, 0, 2, 2), (1, 1, 3, 3)) == 1.0 and _overlap((0, 0, 1, 1), (1, 0, 2, 1)) == 0.0
