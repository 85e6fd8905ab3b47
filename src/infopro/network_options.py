"""What `plan` and `check` ask for on the command line: a network by name, its input, an objective."""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from torch import Tensor, nn

from infopro.errors import BadConfiguration

__all__ = ["add_check", "add_plan", "example_input", "network", "objective", "planned_batch"]

_DEFAULT_BATCH = 128


def add_plan(commands: Any, parser_class: Any) -> None:
    """`infopro plan MODEL`."""
    from jsonargparse.typing import PositiveInt

    plan = parser_class(
        description="Predict the memory of one training step, without a GPU: end to end, with checkpointing, "
        "with accumulated gradients, and in K local modules."
    )
    _add_network(plan)
    plan.add_argument(
        "--batch-size",
        type=PositiveInt | None,
        default=None,
        help=f"images in a step (default: {_DEFAULT_BATCH}; with --memory and --num-modules: the largest)",
    )
    plan.add_argument(
        "--num-modules",
        type=PositiveInt,
        nargs="+",
        default=None,
        help="the K to plan (default: 2 3 4 8 16)",
    )
    plan.add_argument(
        "--memory", type=str | None, default=None, help="what a step may occupy, such as 8GiB: which K fits"
    )
    plan.add_argument("--optimizer", type=Literal["sgd", "adamw"], default="sgd", help="sgd has momentum")
    plan.add_argument(
        "--precision", type=Literal["float32", "bfloat16"], default="float32", help="bfloat16: autocast"
    )
    plan.add_argument(
        "--device",
        type=Literal["cuda", "cpu"],
        default="cuda",
        help="whose allocator and optimizers to follow",
    )
    commands.add_subcommand("plan", plan, help="memory of a training step, predicted without a GPU")


def add_check(commands: Any, parser_class: Any) -> None:
    """`infopro check MODEL`."""
    from jsonargparse.typing import PositiveInt

    check = parser_class(
        description="List every problem of a network, its split and a batch, each with its remedy. "
        "Exit status 2 if one of them stands in the way of training."
    )
    _add_network(check)
    check.add_argument("--batch-size", type=PositiveInt, default=2, help="images in the batch that is tried")
    check.add_argument("--num-modules", type=PositiveInt, default=4, help="K")
    check.add_argument(
        "--cuts", type=list[str] | None, default=None, help="the blocks that end a module, instead of K"
    )
    commands.add_subcommand("check", check, help="problems of a network and a split, with remedies")


def _add_network(parser: Any) -> None:
    from jsonargparse.typing import PositiveInt

    parser.add_argument("model", type=str, help="a name of `infopro list models`")
    parser.add_argument(
        "--input", type=str, default=None, help="CxHxW, such as 3x224x224 (default: the network's)"
    )
    parser.add_argument("--num-classes", type=PositiveInt, default=1000, help="outputs of the network")
    parser.add_argument("--objective", type=str, default="infopro-softmax", help="of the local modules")
    parser.add_argument(
        "--balance",
        type=Literal["memory", "time", "depth"],
        default="memory",
        help="what modules share equally",
    )
    parser.add_argument(
        "--granularity", type=Literal["block", "any"], default="block", help="any: cuts inside blocks, too"
    )


def input_shape(options: Any) -> tuple[int, int, int]:
    """Channels, rows, columns."""
    from infopro.models import required_input

    if options.input is None:
        need = required_input(options.model)
        if need.image_size is None:
            raise BadConfiguration(
                "the size of the input is not known", got=options.model, remedy="pass --input 3x32x32"
            )
        return need.channels or 3, need.image_size, need.image_size
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)", options.input)
    if found is None or "0" in found.groups():
        raise BadConfiguration(
            "--input cannot be read", got=repr(options.input), allowed="CxHxW, such as 3x224x224"
        )
    return int(found[1]), int(found[2]), int(found[3])


def network(options: Any) -> nn.Module:
    """The named network, with random weights."""
    from infopro.models import create

    channels, height, width = input_shape(options)
    return create(
        options.model,
        num_classes=options.num_classes,
        in_channels=channels,
        image_size=(height, width),
    )


def example_input(options: Any, *, real: bool = False) -> Tensor:
    """Random images, or for a plan two without data."""
    shape = input_shape(options)
    return torch.rand(options.batch_size, *shape) if real else torch.empty(2, *shape, device="meta")


def objective(options: Any) -> Any:
    """The objective of that name, with its own options left as they are."""
    from infopro.objectives import from_name

    return from_name(options.objective)


def planned_batch(options: Any) -> int | Literal["largest"]:
    """With a budget and K, but no batch size, the question is for the largest batch."""
    if options.batch_size is not None:
        return int(options.batch_size)
    return "largest" if options.memory is not None and options.num_modules is not None else _DEFAULT_BATCH
