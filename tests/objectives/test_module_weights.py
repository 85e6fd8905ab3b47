"""λ per local module: the published schedule, and the three ways of writing it."""

import pytest

from infopro.errors import BadConfiguration
from infopro.objectives import InfoPro, interpolate
from infopro.tasks import Classification
from infopro.types import StageContext


def weights(num_modules, **options):
    objective = InfoPro(task_head="0c1f", **options)
    stages = []
    for index in range(num_modules - 1):
        context = StageContext(index, num_modules, (4, 2, 2), (3, 8, 8))
        stages.append(objective.build(context, Classification(num_classes=2)))
    return [stage.reconstruction_weight for stage in stages], [stage.task_weight for stage in stages]


# the published CIFAR-10 cells of ResNet-32 with the contrastive loss
@pytest.mark.parametrize(
    ("num_modules", "reconstruction", "task", "expected_reconstruction", "expected_task"),
    [
        (2, (5, 0), (1, 0), [5], [1]),
        (4, (6, 1), (0, 2), [6, 3.5, 1], [0, 1, 2]),
        (8, (5, 0), (0, 2), [5 - 5 * i / 6 for i in range(7)], [2 * i / 6 for i in range(7)]),
        (
            16,
            (5, 0.2),
            (0.05, 0.5),
            [5 - 4.8 * i / 14 for i in range(15)],
            [0.05 + 0.45 * i / 14 for i in range(15)],
        ),
    ],
)
def test_pair_runs_linearly(num_modules, reconstruction, task, expected_reconstruction, expected_task):
    found = weights(num_modules, reconstruction_weight=reconstruction, task_weight=task)
    assert found[0] == pytest.approx(expected_reconstruction, abs=1e-12)
    assert found[1] == pytest.approx(expected_task, abs=1e-12)


@pytest.mark.parametrize("num_local", [1, 2, 3, 15])
def test_ends_are_exact(num_local):
    assert interpolate(0.3, 0.7, index=0, num_local=num_local) == 0.3
    last = interpolate(0.3, 0.7, index=num_local - 1, num_local=num_local)
    assert last == (0.7 if num_local > 1 else 0.3)


def test_number_serves_every_module_and_a_list_one_each():
    assert weights(4, reconstruction_weight=2, task_weight=[0.1, 0.2, 0.4]) == ([2, 2, 2], [0.1, 0.2, 0.4])
    assert weights(3, reconstruction_weight=None, task_weight=(1, 3)) == ([None, None], [1, 3])


@pytest.mark.parametrize("values", [(1, 2, 3), (1,)])
def test_another_count_than_the_local_modules_is_refused(values):
    with pytest.raises(BadConfiguration, match=f"task_weight does not fit .* {len(values)} values for 4"):
        weights(5, task_weight=values)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), (), "5", (1, "2"), (1, -2)])
def test_what_is_no_weight_is_refused(value):
    with pytest.raises(BadConfiguration, match="reconstruction_weight is not a weight"):
        InfoPro(reconstruction_weight=value)
    with pytest.raises(BadConfiguration, match="task_weight is not a weight"):
        InfoPro(task_weight=value)
    with pytest.raises(BadConfiguration, match="task_weight is not a weight: got None"):
        InfoPro(task_weight=None)
