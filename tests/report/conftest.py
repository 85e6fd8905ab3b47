"""Made-up results that look like a short run: 4 methods, 4 places to decode from, 10 epochs, 8 images."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from infopro.analysis import Analysis, BlockInformation, ModuleGradient, References, Similarity
from infopro.report import DrawnSplit, MethodResult, Reconstruction, ReportData, RunResult, StepBytes
from infopro.types import EpochRecord, StageSummary

NUM_EPOCHS, NUM_IMAGES, SIDE = 10, 8, 32
METHODS = {  # name: (K, last test error in %, MiB, seconds, decay of the reconstruction per module)
    "end to end": (1, 7.84, 61.2, 40.3, 0.35),
    "greedy": (4, 20.77, 19.9, 44.0, 0.95),
    "InfoPro's heads without reconstruction": (4, 12.21, 23.4, 52.8, 0.7),
    "InfoPro (softmax)": (4, 10.05, 25.1, 71.6, 0.25),
}


def epoch_record(epoch: int, num_modules: int, last_error: float) -> EpochRecord:
    progress = epoch / NUM_EPOCHS
    # rises at the end, so that the best epoch is not the last one
    error = last_error + 60 * math.exp(-4.2 * progress) - (0.6 if epoch == NUM_EPOCHS - 1 else 0)
    losses = []
    for index in range(num_modules):
        task = (1.1 - 0.2 * index) * math.exp(-2 * progress) + 0.02 * last_error
        terms = {"total": task, "task": task}
        if index < num_modules - 1:
            terms = {
                "total": task + 0.6 - 0.05 * progress,
                "task": task,
                "reconstruction": 0.6 - 0.05 * progress,
            }
        losses.append(terms)
    return EpochRecord(
        epoch=epoch,
        learning_rate=0.1 * (1 - progress),
        losses=tuple(losses),
        train_error=error * 0.9,
        test_error=error,
        test_loss=error / 30,
        best_test_error=min(error, last_error + 60 * math.exp(-4.2 * 0.9) - 0.6) if epoch >= 9 else error,
        seconds=4.0,
        images_per_second=1400.0,
    )


def photographs() -> np.ndarray:
    """Soft blobs with a bright stroke: [n, H, W, C] uint8."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    images = []
    for index in range(NUM_IMAGES):
        ground = np.stack(
            [0.5 + 0.35 * np.sin(2 * x * rng.uniform(1, 5) + 3 * y + rng.uniform(0, 6)) for _ in "rgb"], -1
        )
        stroke = np.abs(np.hypot(x - 0.5, y - 0.5) - 0.2 - 0.01 * index) < 0.04
        images.append(np.where(stroke[..., None], 1 - ground, ground))
    return (np.clip(np.stack(images) + rng.normal(0, 0.03, (NUM_IMAGES, SIDE, SIDE, 3)), 0, 1) * 255).astype(
        np.uint8
    )


def blurred(images: np.ndarray, strength: float) -> np.ndarray:
    """Averages with the image's own mean and its neighbours: what a decoder makes of poorer features."""
    part = images.astype(float)
    for _ in range(round(6 * strength)):
        part = (
            part + np.roll(part, 1, 1) + np.roll(part, -1, 1) + np.roll(part, 1, 2) + np.roll(part, -1, 2)
        ) / 5
    grey = part.mean((1, 2), keepdims=True)
    return (part * (1 - 0.7 * strength) + grey * 0.7 * strength).astype(np.uint8)


def made_up_run(
    seed: int, num_modules: int, last_error: float, seconds: float, num_epochs: int = NUM_EPOCHS
) -> RunResult:
    records = (epoch_record(epoch, num_modules, last_error) for epoch in range(1, num_epochs + 1))
    return RunResult(
        name=f"seed {seed}",
        seed=seed,
        records=tuple(replace(record, seconds=seconds / NUM_EPOCHS) for record in records),
        epochs=NUM_EPOCHS,
    )


def method_result(name: str, images: np.ndarray) -> MethodResult:
    num_modules, last_error, mebibytes, seconds, decay = METHODS[name]
    strengths = [min(1.0, decay * (0.4 + 0.2 * index)) for index in range(4)]
    return MethodResult(
        name=name,
        description="back-propagation through the whole network"
        if num_modules == 1
        else "trained in 4 local modules",
        num_modules=num_modules,
        runs=(made_up_run(0, num_modules, last_error, seconds),),
        saved_bytes=round(mebibytes * 2**20),
        reconstructions=tuple(
            Reconstruction(f"module {index}", blurred(images, strength), 0.55 + 0.09 * strength)
            for index, strength in enumerate(strengths, start=1)
        ),
    )


def stage(
    index: int, blocks: tuple[str, ...], parameters: int, mebibytes: float, shape: tuple[int, ...]
) -> StageSummary:
    heads = 0 if index == 3 else 40_970 + 10_000 * index
    return StageSummary(index, blocks, parameters, heads, round(mebibytes * 2**20), shape)


def made_up_report() -> ReportData:
    images = photographs()
    return ReportData(
        title="Local learning on digits on photos",
        summary="The same small ResNet was trained four times on 5,700 images of handwritten digits pasted "
        "into photographs: end to end, and in four modules that never exchange a gradient. The table says "
        "what each way of training costs and reaches; the pictures show what each module keeps of the image.",
        methods=tuple(method_result(name, images) for name in METHODS),
        findings=(
            "Greedy local learning loses 12.9 percentage points against end to end.",
            "InfoPro (softmax) wins 10.7 of them back with 0.41 × the saved activations of end to end.",
        ),
        notes=("One seed; differences below one percentage point are within the spread of seeds.",),
        splits=(
            DrawnSplit(
                of="InfoPro (softmax)",
                stages=(
                    stage(0, ("stem", "layer1.0"), 5_168, 25.1, (16, 16, 16)),
                    stage(1, ("layer1.1", "layer2.0"), 18_560, 19.0, (32, 8, 8)),
                    stage(2, ("layer2.1", "layer3.0"), 74_112, 11.5, (64, 4, 4)),
                    stage(3, ("layer3.1", "pool", "fc", "a", "b"), 74_634, 6.9, (10,)),
                ),
            ),
        ),
        originals=images,
        captions=tuple(str(digit) for digit in (7, 2, 1, 0, 4, 1, 4, 9)),
        configuration={"model": "demo-resnet", "data": "digits-on-photos", "epochs": "10", "seed": "0"},
        environment={"infopro": "0.1.0", "torch": "2.15.0", "python": "3.12.4", "device": "cpu, 2 threads"},
        command="infopro demo --seed 0",
    )


@pytest.fixture(scope="session")
def report_data() -> ReportData:
    return made_up_report()


BLOCKS = ("stem", "layer1.0", "layer1.1", "layer2.0")


def made_up_analysis(num_modules: int, shift: float, *, probe_seeds: int = 1) -> Analysis:
    """Of four blocks behind the image; a cut behind every second block, or behind every block."""
    blocks = []
    for depth, block in enumerate(("input", *BLOCKS)):
        module = 0 if depth == 0 else 1 + (depth - 1) * num_modules // len(BLOCKS)
        values = tuple(10.0 * depth + shift + seed for seed in range(probe_seeds))
        nats = tuple(value / 30 for value in values)
        blocks.append(
            BlockInformation(
                block=block,
                depth=depth,
                module=module,
                feature_shape=(16, 8, 8),
                linear_error=values,
                input_cross_entropy=tuple(0.5 + value / 1000 for value in values) if depth else (),
                task_information={"small": tuple(0.5 * value for value in nats), "large": nats},
                task_error={"small": values, "large": values},
                nuisance_information={"photo": nats, "digit_left": nats},
            )
        )
    gradients = tuple(
        ModuleGradient(
            module=module,
            local_norm=(1.0, 3.0),
            end_to_end_norm=(0.1, 0.3),
            angle_degrees=(80.0, 90.0) if module < num_modules else (0.0, 0.0),
        )
        for module in range(1, num_modules + 1)
    )
    names = (f"k{num_modules}-seed{shift:.0f}", "elsewhere")
    similarities = tuple(
        Similarity(row_run=names[0], column_run=name, rows=BLOCKS, columns=BLOCKS, values=((0.5,) * 4,) * 4)
        for name in names
    )
    return Analysis(
        references=References(
            pixels=3072,
            label_entropy=math.log(10),
            constant_cross_entropy=0.6,
            nuisance_entropy={"photo": 0.7, "digit_left": 2.0},
        ),
        blocks=tuple(blocks),
        gradients=gradients,
        similarities=similarities,
    )


def studied_method(name: str, num_modules: int, error: float, seeds: tuple[int, ...]) -> MethodResult:
    runs = []
    for seed in seeds:
        run = made_up_run(seed, num_modules, error + seed, 40.0)
        analysis = made_up_analysis(num_modules, float(seed))
        runs.append(replace(run, folder=f"{name}-seed{seed}", analysis=analysis))
    return MethodResult(
        name=f"{name}, K = {num_modules}" if num_modules > 1 else name,
        family=name,
        num_modules=num_modules,
        runs=tuple(runs),
    )


@pytest.fixture(scope="session")
def study_data() -> ReportData:
    """Three families, K = 2 and 4, seeds 0 to 2 (greedy lacks one), all analysed, with predicted memory."""
    methods = [studied_method("end to end", 1, 8.0, (0, 1, 2))]
    for num_modules in (2, 4):
        methods.append(studied_method("greedy", num_modules, 16.0 + num_modules, (0, 2)))
        methods.append(studied_method("infopro-softmax", num_modules, 9.0 + num_modules, (0, 1, 2)))
    kinds = {"parameters": 2**20, "activations": 3 * 2**20, "temporary": 0}
    return ReportData(
        title="a study",
        summary="One paragraph.",
        methods=tuple(methods),
        memory=tuple(StepBytes(name=method.name, kinds=kinds) for method in methods),
        memory_note="Predicted, not measured.",
    )
