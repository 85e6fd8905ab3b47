import pytest

from infopro.errors import BadConfiguration, UnknownName
from infopro.training import SCHEDULES, make_schedule


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [
        (1, 0.01),
        (2, 0.08896916145),  # 0.4 (1 + cos(2π/160)) / 10 + 0.01 · 9/10
        (10, 0.7140827009),  # 0.4 (1 + cos(10π/160)) · 9/10 + 0.01 · 1/10
        (11, 0.7907063525),  # 0.4 (1 + cos(11π/160))
        (80, 0.4),
        (160, 0.0),
    ],
)
def test_paper_formula(epoch, rate):
    schedule = make_schedule("paper", base=0.8, epochs=160, warmup_epochs=10)
    assert schedule(epoch, 0.0) == pytest.approx(rate, rel=1e-9, abs=1e-12)
    assert schedule(epoch, 0.9) == schedule(epoch, 0.0), "one rate an epoch"


def test_paper_without_warm_up_is_half_a_cosine():
    schedule = make_schedule("paper", base=0.8, epochs=2, warmup_epochs=0)
    assert [schedule(e, 0.0) for e in (1, 2)] == pytest.approx([0.4, 0.0])


def test_cosine_warms_up_from_zero_and_ends_at_zero():
    schedule = make_schedule("cosine", base=0.4, epochs=5, warmup_epochs=1)
    points = [(1, 0.0), (1, 0.5), (2, 0.0), (3, 0.0), (4, 0.0), (5, 1.0)]
    found = [schedule(*point) for point in points]
    assert found == pytest.approx([0.0, 0.2, 0.4, 0.2 + 0.2 * 0.5**0.5, 0.2, 0.0])
    steps = [schedule(epoch, done / 4) for epoch in range(2, 6) for done in range(4)]
    assert steps == sorted(steps, reverse=True) and len(set(steps)) == len(steps)


def test_cosine_may_be_all_warm_up():
    schedule = make_schedule("cosine", base=0.4, epochs=2, warmup_epochs=2)
    assert [schedule(1, 0.0), schedule(2, 0.0)] == [0.0, 0.2]


def test_poly_falls_by_a_power_to_the_published_least_rate():
    schedule = make_schedule("poly", base=0.01, epochs=4, warmup_epochs=0)
    found = [schedule(*point) for point in [(1, 0.0), (2, 0.5), (4, 1.0)]]
    assert found == pytest.approx([0.01, (0.01 - 1e-4) * (1 - 0.375) ** 0.9 + 1e-4, 1e-4])
    warm = make_schedule("poly", base=0.01, epochs=4, warmup_epochs=2)
    assert [warm(*point) for point in [(1, 0.5), (3, 0.0), (4, 1.0)]] == pytest.approx([0.0025, 0.01, 1e-4])
    assert make_schedule("poly", base=1e-5, epochs=2, warmup_epochs=0)(2, 1.0) == 1e-5, "it never rises"


def test_constant():
    schedule = make_schedule("constant", base=0.3, epochs=5, warmup_epochs=2)
    assert [schedule(e, 0.0) for e in (1, 2, 3, 5)] == pytest.approx([0.0, 0.15, 0.3, 0.3])
    assert make_schedule("constant", base=0.3, epochs=5, warmup_epochs=0)(1, 0.0) == 0.3


def test_wrong_schedules_are_explained():
    with pytest.raises(UnknownName, match="unknown schedule: got 'cosin'; did you mean cosine"):
        make_schedule("cosin", base=0.1, epochs=1, warmup_epochs=0)
    for name in SCHEDULES:
        with pytest.raises(BadConfiguration, match="warmup_epochs is negative: got -1"):
            make_schedule(name, base=0.1, epochs=1, warmup_epochs=-1)
