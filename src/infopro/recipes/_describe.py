"""Recipes and sessions as text."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from functools import cache

from infopro.recipes._config import RunConfig
from infopro.recipes._recipe import Recipe
from infopro.recipes._session import Session

__all__ = ["describe", "field_help", "published_text"]


def describe(session: Session) -> str:
    """What is about to be trained: network, data, split, device."""
    config, local, data = session.config, session.local, session.data
    parameters = sum(p.numel() for p in local.model.parameters())
    heads = sum(p.numel() for p in local.heads.parameters())
    cuts = ", ".join(local.split.cuts) or "none: end to end"
    lines = [
        f"{config.model} ({parameters:,} parameters, heads {heads:,}) on {data.name}: {_images(session)}",
        f"{config.objective}, K = {local.split.num_modules}, cuts: {cuts}",
        f"{config.epochs} epochs, batch {config.batch_size}, {config.precision} on {session.device}, "
        f"seed {config.seed}",
        *([] if config.average_weights is None else [_averaged(config)]),
        *([] if not data.skipped else [_skipped(len(data.skipped))]),
        *(f"note: {note}" for note in local.split.notes),
    ]
    return "\n".join(lines)


def _averaged(config: RunConfig) -> str:
    return f"tested is the average of the weights over steps, decay {config.average_weights}"


def _skipped(number: int) -> str:
    files = "1 file that cannot be read is" if number == 1 else f"{number:,} files that cannot be read are"
    return f"{files} left out: listed in run.json as skipped_images"


def _images(session: Session) -> str:
    data, shape = session.data, "x".join(map(str, session.data.image_shape))
    if session.config.crop is None:
        return f"{len(data.train):,} training and {len(data.test):,} test images of {shape}"
    return f"{len(data.train):,} training images, crops of {shape}, and {len(data.test):,} whole test images"


def published_text(recipe: Recipe, config: RunConfig | None = None) -> str:
    """The published error beside ours; empty where none is published, or the run differs from the recipe."""
    same = config is None or config == recipe.config or _same_but_seed(config, recipe.config)
    if recipe.published is None or not same:
        return ""
    deviation = recipe.published.standard_deviation
    spread = "" if deviation is None else f" ± {deviation:.2f}"
    return f"  (published: {recipe.published.test_error:.2f}{spread} %, {recipe.published.table})"


@cache
def field_help() -> dict[str, str]:
    """The comment on each line of RunConfig: said once, shown by --help too."""
    source = inspect.getsource(RunConfig)
    found = dict(re.findall(r"^    (\w+): .*?  # (.+)$", source, flags=re.MULTILINE))
    return {field.name: found[field.name] for field in fields(RunConfig)}


def _same_but_seed(left: RunConfig, right: RunConfig) -> bool:
    names = [field.name for field in fields(RunConfig) if field.name != "seed"]
    return all(getattr(left, name) == getattr(right, name) for name in names)
