"""`infopro evaluate`: a run's last checkpoint on its test images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infopro import models, recipes
from infopro.errors import BadConfiguration
from infopro.predict_options import inference_of, refuse_inference
from infopro.prediction import Inference
from infopro.training import Evaluation, RunFolder

__all__ = ["run"]


def run(options: Any) -> str:
    """The line that says what the network is worth.

    Raises:
        InfoProError: no such run, no checkpoint, no data, options that nothing reads.
    """
    path = Path(options.run)
    if options.raw_weights:
        _require_averages(path)
    state, found = recipes.evaluate_run(
        path,
        data_dir=Path(options.data_dir) if options.data_dir else None,
        download=options.download,
        device=recipes.choose_device(options.device),
        num_workers=options.num_workers,
        inference=_inference(path, options),
        best=options.checkpoint == "best",
        averaged=not options.raw_weights,
    )
    which = "" if state.configuration.get("average_weights") is None else ", averaged weights"
    return (
        f"{options.run}, epoch {state.epoch}: {_worth(found)} (loss {found.loss:.4f}) "
        f"on {found.num_images} images{', weights not averaged' if options.raw_weights else which}"
    )


def _require_averages(path: Path) -> None:
    if RunFolder.open(path).configuration.get("average_weights") is None:
        raise BadConfiguration(
            "--raw-weights is set, and nothing reads it", got=f"{path}, a run without averaged weights"
        )


def _inference(path: Path, options: Any) -> Inference | None:
    """None: as training tests, whole images in large batches. SS, MS and MS + flip see them whole alike."""
    if not (options.window or options.scales or options.flip):
        return None
    folder = RunFolder.open(path)
    model = recipes.from_plain(folder.configuration).model
    needs = models.required_input(model)
    if not needs.dense:
        refuse_inference(options, because=f"{model} predicts a class per image")
    _, rows, columns = folder.record["image_shape"]
    found: Inference = inference_of(options, needs=needs, built_for=(rows, columns))
    return found


def _worth(found: Evaluation) -> str:
    if "mean_iou" not in found.scores:
        return f"test error {found.error:.2f} %"
    accuracy = found.scores["pixel_accuracy"]
    return f"test mIoU {100 - found.error:.2f} %, {accuracy:.2f} % of the pixels right"
