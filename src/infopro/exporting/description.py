"""`model.json`: how to build the network, how to feed it, what it is worth and where it comes from."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import torch

from infopro import __version__
from infopro.models import Construction
from infopro.trained_network import TrainedNetwork
from infopro.training import RunFolder
from infopro.types import EpochRecord

__all__ = ["describe"]

_PACKAGES = {"segmentation_models_pytorch": "segmentation-models-pytorch"}  # by what is imported


def describe(
    construction: Construction, network: TrainedNetwork, folder: RunFolder, *, sha256: str, weights: str
) -> dict[str, Any]:
    """Plain values that JSON can hold."""
    channels, rows, columns = network.image_shape
    package = _PACKAGES.get(construction.package, construction.package)
    return {
        "format": 1,
        "library": {
            "package": package,
            "version": metadata.version(package) if package != "infopro" else __version__,
        },
        "construction": {
            "function": construction.function,
            "arguments": list(construction.arguments),
            "options": construction.options,
        },
        "weights": {
            "file": weights,
            "sha256": sha256,
            "average_of_the_run": bool(folder.configuration.get("average_weights")),
        },
        "task": "segmentation" if network.task.dense else "classification",
        "output": _output(network),
        "num_classes": len(network.class_names),
        "class_names": list(network.class_names),
        "input": {
            "shape": ["N", channels, rows, columns],
            "only_this_size": network.needs.fixed,
            "sides_multiple_of": network.needs.multiple_of,
            "preprocessing": _preprocessing(network),
        },
        "test": _test(folder, network),
        "run": {
            "name": folder.record.get("name"),
            "checkpoint": network.origin["checkpoint"],
            "epoch": network.origin["epoch"],
            "configuration": folder.configuration,
            "precision": str(network.precision).removeprefix("torch."),
        },
        "versions": {"infopro": __version__, "torch": str(torch.__version__)},
    }


def _output(network: TrainedNetwork) -> str:
    classes = len(network.class_names)
    if not network.task.dense:
        return f"logits [N, {classes}]"
    return f'logits [N, {classes}, rows, columns]; of a dictionary, "out"; enlarged to the image, if smaller'


def _preprocessing(network: TrainedNetwork) -> list[dict[str, Any]]:
    """In order, as the run's test images were prepared."""
    channels, rows, columns = network.image_shape
    steps: list[dict[str, Any]] = [{"step": "decode", "to": "RGB" if channels == 3 else "grey (luma)"}]
    bilinear = {"interpolation": "bilinear", "antialias": True}
    if network.crops and not network.task.dense:
        steps.append({"step": "resize", "shorter_side": round(rows * 256 / 224), **bilinear})
        steps.append({"step": "center_crop", "size": [rows, columns]})
    elif not network.task.dense:
        steps.append({"step": "resize", "size": [rows, columns], **bilinear})
    elif network.size is not None:
        steps.append({"step": "resize", "size": list(network.size), **bilinear})
    steps.append({"step": "divide", "by": 255})
    mean, std = (values.flatten().tolist() for values in (network.task.mean, network.task.std))
    return [*steps, {"step": "normalise", "mean": mean, "std": std}]


def _test(folder: RunFolder, network: TrainedNetwork) -> dict[str, Any] | None:
    """What the log says of the checkpoint; None, where that is none of a whole epoch."""
    record = _logged(folder, network.origin)
    if record is None:
        return None
    return {
        "error": record.test_error,  # %
        "error_is": "100 - mean IoU, in %" if network.task.dense else "% of the images",
        "loss": record.test_loss,
        "images": folder.record.get("test_images"),
        **record.extra,
    }


def _logged(folder: RunFolder, origin: Any) -> EpochRecord | None:
    if "-step-" in origin["checkpoint"]:
        return None
    configuration, epoch = folder.configuration, int(origin["epoch"])
    if configuration.get("parallel") == "cached":  # whose checkpoints count every module's epochs
        epoch -= (int(configuration["num_modules"]) - 1) * int(configuration["epochs"])
    return next((record for record in folder.log() if record.epoch == epoch), None)
