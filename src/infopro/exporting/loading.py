"""What loads exported weights without this package: a few lines of Python, and timm's own description."""

from __future__ import annotations

from typing import Any

from infopro.models import Construction
from infopro.trained_network import TrainedNetwork

__all__ = ["WEIGHTS", "loading_code", "timm_config"]

WEIGHTS = "model.safetensors"  # what timm looks for, too

_CODE = '''"""Loads the network of this folder. It needs torch, safetensors and {package}."""

from pathlib import Path

import {module}
from safetensors.torch import load_file


def load():
    """The network in eval mode; model.json says how images are prepared for it."""
    model = {call}
    model.load_state_dict(load_file(Path(__file__).with_name("{weights}")))
    return model.eval()
'''


def loading_code(construction: Construction) -> str:
    """A module with one function, `load`.

    Example:
        >>> from infopro.models import construction
        >>> print(loading_code(construction("cifar_resnet20", num_classes=10)).splitlines()[10].strip())
        model = infopro.models.create('cifar_resnet20', num_classes=10, in_channels=3)
    """
    given = [repr(value) for value in construction.arguments]
    given += [f"{name}={value!r}" for name, value in construction.options.items()]
    return _CODE.format(
        package=construction.package,
        module=construction.function.rpartition(".")[0],
        call=f"{construction.function}({', '.join(given)})",
        weights=WEIGHTS,
    )


def timm_config(construction: Construction, network: TrainedNetwork) -> dict[str, Any]:
    """The `config.json` with which `timm.create_model("local-dir:FOLDER", pretrained=True)` builds it."""
    name, _, tag = construction.arguments[0].partition(".")
    traits = getattr(network.model, "pretrained_cfg", {})
    known = {trait: traits[trait] for trait in ("first_conv", "classifier") if traits.get(trait)}
    arguments = {trait: value for trait, value in construction.options.items() if trait != "num_classes"}
    return {
        "architecture": name,
        "num_classes": construction.options["num_classes"],
        "num_features": network.model.num_features,
        "model_args": arguments,
        "label_names": list(network.class_names),
        "pretrained_cfg": {
            **({"tag": tag} if tag else {}),
            "input_size": list(network.image_shape),
            "fixed_input_size": network.needs.fixed,
            "interpolation": "bilinear",
            "crop_pct": 224 / 256 if network.crops else 1.0,
            "crop_mode": "center" if network.crops else "squash",
            "mean": network.task.mean.flatten().tolist(),
            "std": network.task.std.flatten().tolist(),
            "num_classes": construction.options["num_classes"],
            "custom_load": False,
            **known,
        },
    }
