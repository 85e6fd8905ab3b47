"""What local training affords within end to end's memory and time: a larger batch, or larger crops."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from infopro import recipes
from infopro.recipes import RunConfig, Session
from infopro.run_report.prediction import predict
from infopro.training.evaluation import autocast

__all__ = ["peak", "step_seconds", "traded", "with_epochs"]

STEP = 16  # pixels of a side: what DeepLabV3+ wants sides to be multiples of
LARGEST = 4  # times end to end's batch
ROUNDS = 12


def peak(config: RunConfig, *, num_classes: int) -> int:
    """Predicted bytes of a step."""
    assert config.crop is not None
    shape = (3, *config.crop)
    task = recipes.make_task(config, num_classes=num_classes, has_masks=True, image_shape=shape)
    return predict(config, config.cuts or (), image_shape=shape, task=task).step.peak


def traded(base: RunConfig, *, budget: int, num_classes: int) -> dict[str, RunConfig]:
    """The largest batch, and the largest crop, that a configuration affords within a budget.

    The learning rate grows with the batch.
    """
    assert base.crop is not None
    batches = [
        replace(base, batch_size=size, learning_rate=base.learning_rate * size / base.batch_size)
        for size in range(base.batch_size, LARGEST * base.batch_size + 1)
    ]
    rows, columns = base.crop
    crops = [replace(base, crop=(rows + more, columns + more)) for more in range(0, rows, STEP)]
    return {
        "larger batch": _last_within(batches, budget, num_classes),
        "larger crops": _last_within(crops, budget, num_classes),
    }


def _last_within(configs: Sequence[RunConfig], budget: int, num_classes: int) -> RunConfig:
    kept = configs[0]
    for config in configs[1:]:
        if peak(config, num_classes=num_classes) > budget:
            break
        kept = config
    return kept


def step_seconds(configs: Mapping[str, RunConfig], data_dir: Path | None) -> dict[str, float]:
    """Seconds of a training step without its optimizer, on random images, the least of several.

    The configurations take turns, so that what else the machine does falls upon all of them.
    """
    device = torch.device("cpu")
    sessions = {name: _session(config, data_dir, device) for name, config in configs.items()}
    found = dict.fromkeys(configs, float("inf"))
    for _ in range(ROUNDS):
        for name, session in sessions.items():
            size, crop = session.config.batch_size, session.config.crop
            assert crop is not None
            images = torch.rand(size, 3, *crop)
            masks = torch.randint(0, session.data.num_classes, (size, *crop))
            started = time.perf_counter()
            session.local.zero_grad(set_to_none=True)
            with autocast(
                device, torch.bfloat16 if session.config.precision == "bfloat16" else torch.float32
            ):
                session.local.backward(images, masks)
            found[name] = min(found[name], time.perf_counter() - started)
    return found


def _session(config: RunConfig, data_dir: Path | None, device: torch.device) -> Session:
    data = recipes.prepare_data(config, data_dir=data_dir, download=False, device=device)
    return recipes.prepare(config, data, device=device)


def with_epochs(
    configs: Mapping[str, RunConfig], seconds: Mapping[str, float], *, whole: str
) -> dict[str, RunConfig]:
    """Each with as many epochs as fit into the time that `whole`'s take."""
    per_image = {name: seconds[name] / config.batch_size for name, config in configs.items()}
    return {
        name: replace(
            config, epochs=max(1, round(configs[whole].epochs * per_image[whole] / per_image[name]))
        )
        for name, config in configs.items()
    }
