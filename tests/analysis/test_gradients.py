import math

import pytest
import torch
from torch import nn

import infopro
from infopro.analysis import angle_degrees, module_gradients
from infopro.objectives import EndToEnd, Greedy, InfoPro

TASK = infopro.tasks.Classification(num_classes=3)


def images(size=6, seed=0):
    return torch.rand(size, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def batch(seed=0):
    return images(seed=seed), torch.arange(6) % 3


def block(in_channels, channels, dropout):
    parts = [nn.Conv2d(in_channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*parts, nn.Dropout(dropout))


def build(objective=None, *, dropout=0.3, frozen=(), **options):
    torch.manual_seed(0)
    body = [block(3, 4, dropout), block(4, 6, dropout), block(6, 6, dropout)]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    for name in frozen:
        model.get_submodule(name).requires_grad_(False)
    objective = objective or Greedy()
    where = {"cuts": ["0", "1"]} if objective.num_modules is None else {}
    return infopro.localize(model, images(2), objective=objective, task=TASK, **where, **options)


def norm(parameters):
    return math.sqrt(sum(p.grad.double().square().sum().item() for p in parameters if p.grad is not None))


@pytest.mark.parametrize("objective", [Greedy(), InfoPro()])
@pytest.mark.parametrize("record", [True, False])
def test_only_the_last_module_learns_what_end_to_end_would_have_it_learn(objective, record):
    first, second, last = module_gradients(build(objective, record=record), [batch(), batch(1)])
    assert (first.module, second.module, last.module) == (1, 2, 3)
    assert last.angle_degrees == (0, 0) and last.local_norm == last.end_to_end_norm
    for entry in (first, second):
        assert all(angle > 5 for angle in entry.angle_degrees)
        assert entry.local_norm != entry.end_to_end_norm


@pytest.mark.parametrize("options", [{"objective": EndToEnd()}, {"objective": Greedy(), "cuts": []}])
def test_with_one_module_nothing_is_local(options):
    local = infopro.localize(build().model, images(2), task=TASK, **options)
    (only,) = module_gradients(local, [batch()])
    assert only.angle_degrees == (0.0,) and only.local_norm == only.end_to_end_norm


def test_norms_are_those_of_ordinary_gradients_without_the_heads():
    local = build(InfoPro(), dropout=0.0)
    found = module_gradients(local, [batch()])
    local.backward(*batch())
    expected = [norm(stage.part.parameters()) for stage in local.stages]
    assert [entry.local_norm[0] for entry in found] == pytest.approx(expected, rel=1e-12)
    local.zero_grad()
    torch.nn.functional.cross_entropy(local.model(batch()[0]), batch()[1]).backward()
    expected = [norm(stage.part.parameters()) for stage in local.stages]
    assert [entry.end_to_end_norm[0] for entry in found] == pytest.approx(expected, rel=1e-12)


def test_the_model_is_left_as_it_was():
    local = build()
    local.model[1].eval()
    local.backward(*batch())
    gradients = [p.grad for p in local.parameters()]
    values = [g.clone() for g in gradients]
    state = {name: value.clone() for name, value in local.state_dict().items()}
    modes, stream = [m.training for m in local.modules()], torch.get_rng_state()
    module_gradients(local, [batch()])
    assert all(p.grad is g for p, g in zip(local.parameters(), gradients, strict=True))
    assert all(torch.equal(g, v) for g, v in zip(gradients, values, strict=True))
    assert all(torch.equal(value, state[name]) for name, value in local.state_dict().items())
    assert [m.training for m in local.modules()] == modes
    assert torch.equal(torch.get_rng_state(), stream)
    assert not any(m._forward_hooks for m in local.modules())


def test_everything_comes_back_after_an_error():
    local = build()
    local.eval()
    with pytest.raises(infopro.errors.BadInput):
        module_gradients(local, [batch(), (torch.rand(6, 3, 9, 9), batch()[1])])
    assert not any(m.training for m in local.modules())
    assert all(p.grad is None for p in local.parameters())
    assert not any(m._forward_hooks for m in local.modules())


def test_modules_are_in_train_mode_and_batches_have_dropout_of_their_own():
    local = build()
    local.eval()
    seen = []
    same = module_gradients(local, [batch(), batch()], on_batch=seen.append)
    assert seen == [1, 2]
    assert same[0].local_norm[0] != same[0].local_norm[1]
    assert same == module_gradients(local.train(), [batch(), batch()])
    assert same != module_gradients(local, [batch(), batch()], seed=1)


def test_a_frozen_module_has_no_direction():
    first, second, last = module_gradients(build(frozen=["1"]), [batch()])
    assert (second.local_norm, second.end_to_end_norm) == ((0.0,), (0.0,))
    assert math.isnan(second.angle_degrees[0])
    assert first.angle_degrees[0] > 0 and last.angle_degrees[0] == 0


class Shared(nn.Module):
    """One convolution that two modules run."""

    def __init__(self):
        super().__init__()
        self.again = nn.Conv2d(3, 3, 3, padding=1)
        self.first, self.second = nn.Sequential(self.again, nn.ReLU()), nn.Sequential(self.again, nn.ReLU())
        self.last = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))

    def forward(self, x):
        return self.last(self.second(self.first(x)))


def test_what_modules_share_counts_in_each_with_its_own_gradient():
    torch.manual_seed(0)
    model = Shared()
    local = infopro.localize(model, images(2), objective=Greedy(), task=TASK, cuts=["first", "second"])
    first, second, _ = module_gradients(local, [batch()])
    own = []

    def take(_):
        own.append(norm(model.again.parameters()))
        local.zero_grad()

    local.backward(*batch(), on_stage_done=take)
    assert [first.local_norm[0], second.local_norm[0]] == pytest.approx(own[:2], rel=1e-12)
    assert own[0] != own[1]
    assert first.end_to_end_norm == second.end_to_end_norm


@pytest.mark.parametrize(
    ("left", "right", "degrees"),
    [
        ([1.0, 0.0], [1.0, 1e-9], math.degrees(1e-9)),  # the cosine is 1 in float64
        ([1.0, 0.0], [-3.0, 0.0], 180),
        ([2.0, 2.0], [0.0, 5.0], 45),
        ([1e-30, 0.0], [1e-30, 1e-30], 45),
    ],
)
def test_angles_known_in_closed_form(left, right, degrees):
    as_gradient = lambda numbers: [torch.tensor([x], dtype=torch.float64) for x in numbers]  # noqa: E731
    assert angle_degrees(as_gradient(left), as_gradient(right)) == pytest.approx(degrees, rel=1e-9)


@pytest.mark.parametrize("nothing", [[None], [torch.zeros(2)], [torch.tensor([math.nan, 1.0])]])
def test_no_angle_to_a_gradient_without_direction(nothing):
    assert math.isnan(angle_degrees(nothing, [torch.ones(2)]))
