"""The demonstration: one small network trained four ways on embedded images, and a page that shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infopro import recipes, report
from infopro.analysis import Reconstructions, own_reconstructions, probe_reconstructions
from infopro.data import ImageData, ImageTensors, batches, digits_on_photos, num_batches
from infopro.errors import BadConfiguration, BadRun
from infopro.memory import summarize_stages
from infopro.recipes import RunConfig, Session
from infopro.report import DrawnSplit, MethodResult, Reconstruction, ReportData, RunResult
from infopro.training import RunFolder, TrainingProgress, describe_environment
from infopro.types import EpochRecord, StageSummary
from infopro.writable import require_writable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["METHODS", "Outcome", "run_demo", "train_method"]

# recipe, name in table and page, what distinguishes it
METHODS = (
    ("digits-demo-end-to-end", "end to end", "ordinary back-propagation through the whole network"),
    ("digits-demo-k4-greedy", "greedy", "each module trained by a linear classifier on its pooled features"),
    (
        "digits-demo-k4-no-reconstruction",
        "control: heads only",
        "InfoPro's task heads without the reconstruction (λ1 = 0): what a stronger head alone does",
    ),
    (
        "digits-demo-k4-infopro-softmax",
        "InfoPro",
        "task heads and reconstruction of the input in every module",
    ),
)
_INTRODUCTION = (
    "Real handwritten digits on real photographs, embedded: nothing is downloaded. One small network is\n"
    "trained four ways: end to end, and three times cut into 4 modules that never exchange a gradient."
)
_SHOWN_IMAGES = 8
_PROBE_STEPS = 45  # of the decoders trained on frozen features: half an epoch


@dataclass(frozen=True)
class Outcome:
    """One trained method with what was measured on it."""

    result: MethodResult
    stages: tuple[StageSummary, ...]


def run_demo(
    *,
    output: Path,
    seed: int,
    console: Console,
    epochs: int | None = None,
    train_size: int = 5700,
    test_size: int = 2000,
) -> list[Outcome]:
    """Train all methods with live progress, print the table, write `output/report.html`.

    Args:
        epochs: None for as many as the recipes say; fewer only show that everything runs.

    Raises:
        BadRun: `output` exists and is not empty.
    """
    _require_sizes(train_size, test_size)
    RunFolder.require_new(output, remedy="pass another --output")
    _make(output)
    console.print(_INTRODUCTION, highlight=False)
    data = digits_on_photos(train_size=train_size, test_size=test_size, seed=seed)
    outcomes = [
        train_method(recipe, name, description, data=data, seed=seed, console=console, epochs=epochs)
        for recipe, name, description in METHODS
    ]
    results = [outcome.result for outcome in outcomes]
    console.print(report.result_table(results))
    findings = _findings(results)
    for finding in findings:
        console.print(finding, highlight=False)
    page = report.write_report(_page(data, outcomes, findings, seed), output / "report.html")
    console.print(f"\nwrote {page}: open it in a browser", highlight=False, soft_wrap=True)
    return outcomes


def _require_sizes(train_size: int, test_size: int) -> None:
    least = recipes.load(METHODS[-1][0]).config.batch_size
    if train_size < least or test_size < _SHOWN_IMAGES:
        raise BadConfiguration(
            "too few images",
            got=f"{train_size} to train and {test_size} to test",
            allowed=f"{least} or more, and {_SHOWN_IMAGES} or more",
        )


def _make(folder: Path) -> None:
    """Before the training, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadRun("the folder cannot be made", got=error, remedy="pass another --output") from error
    require_writable(folder)


def train_method(
    recipe: str,
    name: str,
    description: str,
    *,
    data: ImageData,
    seed: int,
    console: Console,
    epochs: int | None = None,
    show_reconstructions: bool = True,
) -> Outcome:
    """Train one recipe on `data`, then measure its saved bytes and look at its features."""
    config = recipes.load(recipe).config
    config = replace(config, seed=seed, epochs=epochs or config.epochs)
    device = torch.device("cpu")  # small enough that a GPU would not be faster; the numbers are then the same
    session = recipes.prepare(config, data, device=device)
    records = _train(session, name, console)
    images, labels = next(_batches(data, config, train=True, epoch=0))
    stages = summarize_stages(session.local, images, labels)
    infopro = recipes.load(METHODS[-1][0]).config
    views = _views(session, infopro.cuts or (), infopro.decoder) if show_reconstructions else []
    result = MethodResult(
        name=name,
        description=description,
        num_modules=session.local.split.num_modules,
        runs=(RunResult(name=f"seed {seed}", seed=seed, records=tuple(records), epochs=config.epochs),),
        saved_bytes=max(stage.saved_bytes for stage in stages),
        reconstructions=tuple(_shown(view, index) for index, view in enumerate(views)),
    )
    return Outcome(result, stages)


def _train(session: Session, name: str, console: Console) -> list[EpochRecord]:
    config = session.config
    steps = num_batches(session.data.train, batch_size=config.batch_size)
    with TrainingProgress(console, title=name, epochs=config.epochs, steps_per_epoch=steps) as bar:
        return recipes.fit(session, on_step=bar.on_step, on_epoch=bar.on_epoch)


def _batches(
    data: ImageData, config: RunConfig, *, train: bool, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    return batches(
        data.train if train else data.test,
        batch_size=config.batch_size,
        mean=data.mean,
        std=data.std,
        augmentation=data.augmentation if train else None,
        shuffle=train,
        seed=config.seed,
        epoch=epoch,
        device="cpu",
    )


def _views(session: Session, probed: Sequence[str], decoder_name: str) -> list[Reconstructions]:
    """What each module's decoder makes of the test images: its own, or one trained on its frozen features."""
    local, config = session.local, session.config
    images = torch.cat([images for images, _ in _batches(session.data, config, train=False, epoch=0)])
    if local.split.cuts and all("reconstruction" in stage.heads for stage in local.stages[:-1]):
        return own_reconstructions(local, images)
    torch.manual_seed(config.seed)
    return probe_reconstructions(
        local.model,
        local.task,
        blocks=probed,
        batches=islice(_batches(session.data, config, train=True, epoch=0), _PROBE_STEPS),
        images=images,
        decoder_name=decoder_name,
    )


def _shown(view: Reconstructions, index: int) -> Reconstruction:
    pixels = (view.images[:_SHOWN_IMAGES] * 255).round().to(torch.uint8)
    return Reconstruction(f"module {index + 1}", pixels.permute(0, 2, 3, 1).contiguous().numpy(), view.error)


def _findings(results: Sequence[MethodResult]) -> tuple[str, ...]:
    """What the numbers say, whichever way they fall."""
    error = {result.name: result.records[-1].test_error for result in results}
    end_to_end, greedy, control, infopro = (error[name] for _, name, _ in METHODS)
    saved = {result.name: result.saved_bytes or 0 for result in results}
    share = 100 * saved["InfoPro"] / saved["end to end"]
    return (
        f"Greedy: {greedy:.2f} %, {greedy - end_to_end:+.2f} points against end to end ({end_to_end:.2f} %).",
        f"InfoPro: {infopro:.2f} %, {infopro - greedy:+.2f} points against greedy.",
        f"InfoPro's heads without reconstruction: {control:.2f} %, {control - infopro:+.2f} points against "
        "InfoPro: "
        + (
            "here the gain over greedy comes from the stronger heads, and reconstruction costs some of it."
            if control < infopro
            else "here reconstruction adds to what the stronger heads gain."
        ),
        f"InfoPro keeps {share:.0f} % of end to end's activations at once. Checkpointing and gradient "
        "accumulation save memory too, and compute the exact gradient.",
    )


def _page(data: ImageData, outcomes: Sequence[Outcome], findings: tuple[str, ...], seed: int) -> ReportData:
    config = recipes.load(METHODS[-1][0]).config
    shown = data.test.take(torch.arange(_SHOWN_IMAGES))
    assert isinstance(shown, ImageTensors)
    environment = describe_environment(torch.device("cpu"))
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    return ReportData(
        title="InfoPro on digits on photos",
        summary=(
            "The same small network was trained four ways on scikit-learn's handwritten digits, placed at "
            "random on crops of photographs. End to end keeps every activation until the backward pass. The "
            "other three cut the network into 4 modules, each trained by its own loss, with no gradient "
            "between them. InfoPro's modules must not only serve the task but also be able to reconstruct "
            "their input."
        ),
        methods=tuple(outcome.result for outcome in outcomes),
        findings=findings,
        notes=(
            f"One seed ({seed}), {len(outcomes[-1].result.records)} epochs, {len(data.train):,} training and "
            f"{len(data.test):,} test images: enough to see effects, too little to say how large they are.",
            "InfoPro's reconstructions come from the decoders that it was trained with; for the others a "
            f"decoder of the same form was trained for {_PROBE_STEPS} steps on their frozen features.",
            f"Saved activations: what autograd keeps for one step of {config.batch_size} images, heads "
            "included.",
        ),
        splits=(DrawnSplit(of=outcomes[-1].result.name, stages=outcomes[-1].stages),),
        originals=shown.images.permute(0, 2, 3, 1).contiguous().numpy(),
        captions=tuple(data.class_names[label] for label in shown.labels.tolist()),
        configuration={name: str(value) for name, value in asdict(config).items()},
        environment={
            "device": str(environment["device"]),
            "threads": str(environment["threads"]),
            "python": environment["python"],
            "versions": versions,
        },
        command=f"infopro demo --seed {seed}",
    )
