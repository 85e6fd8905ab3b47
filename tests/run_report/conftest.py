"""Run folders as training and analysis leave them, with made-up numbers."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infopro.analysis import Analysis, BlockInformation, DecodedImages, ModuleGradient, References, Similarity
from infopro.analysis.files import write_analysis
from infopro.recipes import RunConfig
from infopro.recipes._stored import plain
from infopro.training import RunFolder
from infopro.types import EpochRecord

BLOCKS = ("relu", *(f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)))
CUTS = {
    1: (),
    2: ("layer2.0",),
    4: ("layer1.2", "layer2.1", "layer3.0"),
    8: ("layer1.0", "layer1.1", "layer1.2", "layer2.0", "layer2.1", "layer2.2", "layer3.0"),
}
HARM = {"end-to-end": 0.0, "greedy": 1.0, "infopro-softmax": 0.25, "infopro-contrast": 0.3, "dgl": 0.5}
FACTORS = ("photo", "digit_left", "digit_top", "crop_scale", "digit_size")


def records(config: RunConfig, epochs: int, random: np.random.Generator) -> list[EpochRecord]:
    """Losses that fall, and an error that ends the higher the more modules learn on their own."""
    last = 8 + 5 * HARM[config.objective] * math.log2(config.num_modules) + random.normal(0, 0.5)
    found: list[EpochRecord] = []
    for epoch in range(1, epochs + 1):
        progress = epoch / config.epochs
        error = max(0.0, last + 60 * math.exp(-5 * progress) + random.normal(0, 0.3))
        terms = {"task": 2.3 * math.exp(-2 * progress)}
        if config.objective.startswith("infopro"):
            terms["reconstruction"] = 0.6 - 0.04 * progress
        local = {**terms, "total": sum(terms.values())}
        final = {"task": terms["task"], "total": terms["task"]}
        best = min([error, *(record.best_test_error for record in found)])
        found.append(
            EpochRecord(
                epoch=epoch,
                learning_rate=0.1,
                losses=(*[local] * (config.num_modules - 1), final),
                train_error=error * 0.9,
                test_error=error,
                test_loss=error / 30,
                best_test_error=best,
                seconds=4.0,
                images_per_second=1400.0,
            )
        )
    return found


def analysis_of(config: RunConfig, run: str, random: np.random.Generator, *, images: bool = True) -> Analysis:
    """Greedy separates early and forgets; end to end keeps longer."""
    harm = HARM[config.objective] * math.log2(config.num_modules) / 3
    cuts, module, blocks = CUTS[config.num_modules], 1, []
    for depth, block in enumerate(("input", *BLOCKS)):
        share = depth / len(BLOCKS)
        noise = random.normal(0, 0.01)
        task = 2.3 * (0.25 + 0.7 * share**1.5 * (1 - 0.4 * harm) + noise)
        linear = 62 - 50 * (share * (1 - harm) + share**0.4 * harm * 0.85) + 30 * noise
        blocks.append(
            BlockInformation(
                block=block,
                depth=depth,
                module=0 if not depth else module,
                feature_shape=(16, 8, 8),
                linear_error=(linear,),
                input_cross_entropy=(0.56 + 0.07 * share * (0.5 + harm) + noise / 5,) if depth else (),
                task_information={"small": (task * 0.85,), "large": (task,)},
                task_error={"small": (100 - 40 * task,), "large": (100 - 42 * task,)},
                nuisance_information={
                    name: (1.9 * math.exp(-(1 + place / 3 + 2 * harm) * share) + noise,)
                    for place, name in enumerate(FACTORS)
                },
            )
        )
        module += block in cuts
    gradients = tuple(
        ModuleGradient(
            module=index,
            local_norm=tuple(random.uniform(0.5, 2, 5)),
            end_to_end_norm=tuple(random.uniform(0.1, 0.4, 5)),
            angle_degrees=(0.0,) * 5
            if index == config.num_modules
            else tuple(70 + 20 * HARM[config.objective] + random.normal(0, 3, 5)),
        )
        for index in range(1, config.num_modules + 1)
    )
    distance = np.abs(np.subtract.outer(np.arange(len(BLOCKS)), np.arange(len(BLOCKS))))
    cka = Similarity(
        row_run=run,
        column_run=run,
        rows=BLOCKS,
        columns=BLOCKS,
        values=tuple(map(tuple, np.exp(-distance / (3 + harm)).tolist())),
    )
    return Analysis(
        references=References(
            pixels=3072,
            label_entropy=math.log(10),
            constant_cross_entropy=0.66,
            nuisance_entropy=dict.fromkeys(FACTORS, math.log(8)),
        ),
        blocks=tuple(blocks),
        gradients=gradients,
        similarities=(cka,),
        settings={"train_images": 10_000, "epochs": 12},
        images=decoded(harm) if images else None,
        notes=("factor source left out: it determines the label",),
    )


def decoded(harm: float) -> DecodedImages:
    """Stripes, the flatter the later the block."""
    y, x = np.mgrid[0:16, 0:16] / 16
    originals = np.stack([0.5 + 0.4 * np.sin(6 * x * (n + 1) + 4 * y * n) for n in range(8)])
    originals = np.repeat(originals[..., None], 3, -1) * np.array([1.0, 0.8, 0.6])
    parts = [0.5 + (originals - 0.5) * math.exp(-(0.1 + harm) * depth / 4) for depth in range(len(BLOCKS))]
    return DecodedImages(
        originals=(255 * originals).astype(np.uint8),
        captions=tuple(str(n) for n in range(8)),
        blocks=BLOCKS,
        decoded=(255 * np.stack(parts)).astype(np.uint8),
    )


def make_run(
    folder: Path, *, done: int | None = None, analysed: bool = True, images: bool = True, **options: Any
) -> Path:
    """A run's folder: `options` are fields of its configuration."""
    fields = {"model": "demo_resnet20", "data": "digits-on-photos", "epochs": 10, "batch_size": 64}
    config = RunConfig(**{"reconstruction_weight": 5.0, "task_weight": 1.0, **fields, **options})
    config = replace(config, cuts=CUTS[config.num_modules] if config.num_modules > 1 else None)
    random = np.random.default_rng(zlib.crc32(repr(config).encode()))
    record = {
        "name": "made up",
        "command": f"infopro train --output {folder.name}",
        "cuts": list(config.cuts or ()),
        "image_shape": [3, 16, 16],
        "num_classes": 10,
        "train_images": 10_000,
        "test_images": 2_000,
        "environment": {"python": "3.12.4", "versions": {"torch": "2.14.1"}, "device": "a processor"},
    }
    run = RunFolder.create(folder, configuration=plain(config), record=record)
    for line in records(config, config.epochs if done is None else done, random):
        run.append(line)
    if analysed:
        write_analysis(folder, analysis_of(config, folder.name, random, images=images))
    return folder


@pytest.fixture(scope="session")
def new_run() -> Callable[..., Path]:
    return make_run


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """End to end, greedy and InfoPro; K = 2 and 4; two seeds; all analysed."""
    folder = tmp_path_factory.mktemp("study") / "runs"
    for seed in (0, 1):
        make_run(folder / f"end-to-end-seed{seed}", objective="end-to-end", num_modules=1, seed=seed)
        for k in (2, 4):
            for objective in ("greedy", "infopro-softmax"):
                options = {"objective": objective, "num_modules": k, "seed": seed}
                make_run(folder / f"k{k}-{objective}-seed{seed}", **options)
    return folder
