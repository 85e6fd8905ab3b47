"""What `sweep` asks for on the command line: methods, K, seeds, and any option of `train` for all runs."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any, Literal, get_type_hints

__all__ = ["VARIED", "add_sweep"]

VARIED = ("objective", "num_modules", "seed", "parallel")  # by the sweep itself


def add_sweep(commands: Any, parser_class: Any) -> None:
    """`infopro sweep [FAMILY]`."""
    sweep = parser_class(
        description="Train methods x K x seeds, analyse them and write one report. With --resume a finished "
        "run stays as it is, and one that was stopped goes on. Any other option of `infopro train` replaces "
        "what the recipes say, for all runs."
    )
    _add_grid(sweep)
    _add_places(sweep)
    _add_overrides(sweep)
    commands.add_subcommand("sweep", sweep, help="methods x K x seeds in one command, and their report")


def _add_grid(sweep: Any) -> None:
    from jsonargparse.typing import NonNegativeInt, PositiveInt

    family = "how recipes' names begin, such as cifar10-resnet32; none: own options"
    sweep.add_argument("family", type=str, nargs="?", help=family)
    methods = "how the family's recipes end, or objectives (default: all of the family's)"
    sweep.add_argument("--objectives", type=str, nargs="+", default=None, help=methods)
    numbers = "the K (default: all of the family's)"
    sweep.add_argument("--num-modules", type=PositiveInt, nargs="+", default=None, help=numbers)
    sweep.add_argument("--seeds", type=PositiveInt, default=1, help="how many")
    sweep.add_argument("--first-seed", type=NonNegativeInt, default=0, help="the seeds count up from here")
    whole = "train the whole network besides (K = 1)"
    sweep.add_argument("--end-to-end", type=bool, default=True, help=whole)
    which = "the runs whose layers are analysed: largest K and end to end, all, or none"
    choices = Literal["largest-k", "all", "none"]
    sweep.add_argument("--analyze", type=choices, default="largest-k", help=which)
    probed = "training images that an analysis learns from (default: as infopro analyze)"
    sweep.add_argument("--probe-images", type=PositiveInt | None, default=None, help=probed)


def _add_places(sweep: Any) -> None:
    from jsonargparse.typing import NonNegativeInt, PositiveInt

    side_by_side = "runs side by side (default: one per GPU, or per core)"
    sweep.add_argument("--jobs", type=PositiveInt | None, default=None, help=side_by_side)
    devices = "such as cuda:0 cuda:1 (default: all GPUs, or cpu)"
    sweep.add_argument("--devices", type=str, nargs="+", default=None, help=devices)
    output = "folder of all runs (default: sweeps/FAMILY)"
    sweep.add_argument("--output", type=str, default=None, help=output)
    sweep.add_argument("--resume", action="store_true", help="go on with what is in the folder")
    data = "folder with the downloaded sets (default: data)"
    sweep.add_argument("--data-dir", type=str, default=None, help=data)
    sweep.add_argument("--download", action="store_true", help="fetch a missing set")
    readers = "processes per run that read image files"
    sweep.add_argument("--num-workers", type=NonNegativeInt, default=0, help=readers)


def _add_overrides(sweep: Any) -> None:
    from infopro import recipes

    config = recipes.RunConfig
    for field in fields(config):
        if field.name not in VARIED:
            sweep.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=get_type_hints(config)[field.name],
                default=argparse.SUPPRESS,
                help=recipes.field_help()[field.name].replace("%", "%%"),
            )
