"""A run that is stopped before every batch, of training and of tests, ends bit for bit as one that is not.

One run in all that is stopped again and again, so that a difference anywhere would stay to its end. A single
stop at each place, and processes that are killed: benchmarks/kill_and_resume.py.
"""

import json
from contextlib import contextmanager, nullcontext
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

from infopro import recipes
from infopro.data import Augmentation, ImageData, ImageTensors
from infopro.engines import joined
from infopro.training import RunFolder, checkpoints

CPU = torch.device("cpu")
CLOCKS = ("seconds", "images_per_second")
CLASSES, SIDE = 3, 8
# what runs it: processes, RunConfig, shard
ENGINES = {
    "one process": (1, {"precision": "bfloat16", "average_weights": 0.9}, False),
    "pipeline": (2, {"parallel": "pipeline", "average_weights": 0.9}, False),
    "data": (2, {"parallel": "data", "average_weights": 0.9}, False),
    "sharded data": (2, {"parallel": "data", "precision": "bfloat16", "epochs": 1}, True),
    "replicas of a pipeline": (4, {"parallel": "pipeline", "epochs": 1}, False),
}


def network(name, *, num_classes, in_channels, **_):
    def block(channels, width):
        return nn.Sequential(nn.Conv2d(channels, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.2))

    tail = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, num_classes)
    return nn.Sequential(block(in_channels, 4), block(4, 6), *tail)


def pixels(size, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (size, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    return ImageTensors(images, torch.arange(size) % CLASSES)


def noise():
    """Three batches, the last one smaller, and a test of two."""
    return ImageData(
        name="noise",
        train=pixels(21, 0),
        test=pixels(8, 1),
        num_classes=CLASSES,
        class_names=("a", "b", "c"),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        image_shape=(3, SIDE, SIDE),
        augmentation=Augmentation(crop_padding=1, flip=True),
    )


@contextmanager
def small():
    """The network above, and tests of four images at a time."""
    with (
        mock.patch("infopro.models.create", network),
        mock.patch("infopro.training.reading._MOST_IMAGES", 4),
    ):
        yield


def configuration(settings):
    return recipes.RunConfig(
        data="noise",
        model="cifar_resnet20",
        num_modules=2,
        objective="dgl",
        batch_size=8,
        learning_rate=0.1,
        optimizer="adamw" if settings.get("precision") else "sgd",
        **{"epochs": 2, **settings},
    )


class Stop:
    """Says so when it is asked for the `at`-th time, and tells afterwards whether it was."""

    def __init__(self, at):
        self.at, self.asked = at, 0

    def __call__(self):
        self.asked += 1
        return self.asked == self.at


def go_on(path, processes, settings, shard, stop):
    """Train on from the last checkpoint; whether it was stopped."""
    session = recipes.prepare(
        configuration(settings), noise(), device=CPU, processes=processes, shard=shard, stop=stop
    )
    if session.engine.writes and not path.exists():
        RunFolder.create(path, configuration={}, record={})
    wait(processes)
    folder = RunFolder.open(path)
    start = recipes.restore(session, folder, last(path))
    recipes.train_run(session, folder, start=start)
    wait(processes)
    return session.engine.stopped


def go_on_cached(path, stop):
    settings = {"parallel": "cached", "views": 2, "epochs": 1}
    session = recipes.prepare(configuration(settings), noise(), device=CPU)
    if not path.exists():
        RunFolder.create(path, configuration={"parallel": "cached"}, record={})
    try:
        recipes.train_cached_run(session, RunFolder.open(path), resume_from=last(path), stop=stop)
    except recipes.Stopped:
        return True
    return False


def stop_before_every_batch(path, start):
    """How often a run was stopped: one batch after it began, or later where it did not get any further."""
    stops, at = 0, 2
    while True:
        before = last(path)
        if not start(Stop(at)):
            return stops
        stops, at = stops + 1, at + 1 if last(path) == before else 2


def last(path):
    found = checkpoints(path / "checkpoints")
    return found[-1] if found else None


def wait(processes):
    if processes is not None:
        dist.barrier()


def left(path):
    """Everything that the run has left, but times."""
    state = json.loads((last(path) / "state.json").read_text())
    found = {name: state[name] for name in ("epoch", "step", "best_test_error", "totals")}
    for file in last(path).glob("*.safetensors"):
        tensors = load_file(file).items()
        found |= {f"{file.name}: {name}": tensor.flatten().tolist() for name, tensor in tensors}
    for name in ("log.jsonl", "modules.jsonl"):
        if (path / name).exists():
            lines = map(json.loads, (path / name).read_text().splitlines())
            found[name] = [{n: v for n, v in line.items() if n not in CLOCKS} for line in lines]
    return found


def stopped_again_and_again(folder, name):
    """How often, and what differs in the end."""
    number, settings, shard = ENGINES[name]
    stages = 2 if settings.get("parallel") == "pipeline" else None
    together = nullcontext() if number == 1 else joined(num_stages=stages, device=CPU, timeout_seconds=60)
    with small(), together as processes:
        go_on(folder / "undisturbed", processes, settings, shard, Stop(None))
        stops = stop_before_every_batch(
            folder / "stopped", lambda stop: go_on(folder / "stopped", processes, settings, shard, stop)
        )
    return stops, differing(folder)


def differing(folder):
    found, expected = left(folder / "stopped"), left(folder / "undisturbed")
    assert found.keys() == expected.keys()
    return [name for name, value in found.items() if value != expected[name]]


@pytest.mark.parametrize("name", ENGINES)
def test_stopped_before_every_batch_it_goes_on_bit_for_bit(name, crew, tmp_path):
    arguments = tmp_path, name
    alone = ENGINES[name][0] == 1
    results = (
        [stopped_again_and_again(*arguments)]
        if alone
        else crew(ENGINES[name][0], stopped_again_and_again, *arguments)
    )
    for stops, different in results:
        assert stops >= 4 * ENGINES[name][1].get("epochs", 2)  # of three steps and two batches to test
        assert different == []


def test_stopped_before_every_batch_a_cached_run_goes_on_bit_for_bit(tmp_path):
    with small():
        go_on_cached(tmp_path / "undisturbed", Stop(None))
        stops = stop_before_every_batch(
            tmp_path / "stopped", lambda stop: go_on_cached(tmp_path / "stopped", stop)
        )
    assert stops >= 12  # in training, tests and the recording of features, of which it repeats some
    assert differing(tmp_path) == []
