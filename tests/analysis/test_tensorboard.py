"""An analysis as TensorBoard scalars: a point per block."""

import builtins

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from infopro.analysis import Analysis, BlockInformation, ModuleGradient, References
from infopro.analysis.tensorboard import log_analysis

ANALYSIS = Analysis(
    references=References(pixels=100, label_entropy=2.3, constant_cross_entropy=0.7),
    blocks=(
        BlockInformation(block="input", depth=0, module=0, feature_shape=(3, 4, 4), linear_error=(60.0,)),
        BlockInformation(
            block="stem",
            depth=1,
            module=1,
            feature_shape=(8, 4, 4),
            linear_error=(40.0,),
            input_cross_entropy=(0.5, 0.6),
            task_information={"small": (1.0,), "large": (1.5,)},
            nuisance_information={"photo": (0.25,)},
        ),
    ),
    gradients=(
        ModuleGradient(module=1, local_norm=(1.0,), end_to_end_norm=(1.0,), angle_degrees=(80.0, 90.0)),
    ),
)


def read(folder):
    events = EventAccumulator(str(folder / "tensorboard" / "analysis"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_steps_are_depths_and_modules(tmp_path):
    for _ in range(2):  # the second replaces the first
        assert log_analysis(tmp_path, ANALYSIS)
    found = read(tmp_path)
    assert found["analysis/linear_error"] == [(0, 60.0), (1, 40.0)]
    assert found["analysis/input_score"] == [(1, pytest.approx(0.45))]
    assert found["analysis/input_information"] == [(1, pytest.approx(15.0))]
    assert found["analysis/task_information/large"] == [(1, 1.5)]
    assert found["analysis/nuisance_information/photo"] == [(1, 0.25)]
    assert found["analysis/gradient_angle"] == [(1, 85.0)]


def test_without_the_package_nothing_is_written(tmp_path, monkeypatch):
    original = builtins.__import__

    def without(name, *rest):
        if name.startswith(("tensorboard", "torch.utils.tensorboard")):
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert not log_analysis(tmp_path, ANALYSIS) and list(tmp_path.iterdir()) == []
