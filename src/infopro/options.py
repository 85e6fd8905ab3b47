"""The command line's options: one parser per subcommand, the recipe's values as defaults."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

from infopro.analyze_options import add_analyze
from infopro.data_options import add_data_and_device
from infopro.export_options import add_export
from infopro.network_options import add_check, add_plan
from infopro.option_mistakes import mistaken
from infopro.predict_options import add_inference, add_predict
from infopro.report_options import add_report
from infopro.reproduce_options import add_reproduce
from infopro.sweep_options import add_sweep

__all__ = ["DEFAULT_QUEUE", "LISTS", "configuration", "expanded", "make_parser", "parse", "recipe_named_in"]

DEFAULT_QUEUE = 2  # batches under way between two processes
LISTS = ("recipes", "models", "data", "objectives", "heads", "decoders", "tasks")
_SWITCHES = ("--download", "--resume", "--shard", "--print_config", "--help", "-h")  # options without a value
_ALONE = ("--deterministic",)  # true where no value follows
_SEQUENCES = (
    "cuts",
    "reconstruction-weight",
    "task-weight",
    "class-weights",
    "image-size",
    "crop",
    "scale",
)  # a,b,c is short for [a,b,c]


def parse(arguments: list[str]) -> tuple[Any, Any]:
    """The options, and the parser that can print help."""
    from infopro import recipes

    arguments = expanded(arguments)
    recipe = recipe_named_in(arguments)
    parser = make_parser(recipes.load(recipe).config if recipe else recipes.RunConfig())
    options = parser.parse_args(arguments)
    if options.command == "train":
        options.train.recipe = recipe
    return options, parser


def make_parser(recipe_config: Any) -> Any:
    """The command line's parser; a mistake becomes a BadConfiguration instead of usage and traceback."""
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        def __init__(self, **options: Any):
            # a misspelt option must not pass for a longer one
            super().__init__(allow_abbrev=False, **options)

        def error(self, message: str, ex: Exception | None = None) -> Any:
            raise mistaken(message, command=self.prog.replace("[options] ", ""))

    parser = Parser(
        prog="infopro", description="Locally supervised deep learning: K modules, each with its own loss."
    )
    commands = parser.add_subcommands(dest="command", required=False)

    _add_demo(commands, Parser)
    _add_train(commands, Parser, recipe_config)
    add_reproduce(commands, Parser)
    _add_evaluate(commands, Parser)
    add_predict(commands, Parser)
    add_export(commands, Parser)
    add_analyze(commands, Parser)
    _add_list(commands, Parser)
    add_plan(commands, Parser)
    add_check(commands, Parser)
    add_report(commands, Parser)
    add_sweep(commands, Parser)
    return parser


def _add_demo(commands: Any, parser_class: Any) -> None:
    from jsonargparse.typing import PositiveInt

    demo = parser_class(
        description="Train one small network in four ways on embedded images and write report.html."
    )
    demo.add_argument("--output", type=str, default="infopro-demo", help="new folder for the report")
    demo.add_argument(
        "--seed", type=int, default=0, help="of rendering, initialisation, order and augmentation"
    )
    demo.add_argument(
        "--epochs", type=PositiveInt | None, default=None, help="fewer for a quick look (default: 8)"
    )
    demo.add_argument("--train-size", type=PositiveInt, default=5700, help="training images to render")
    demo.add_argument("--test-size", type=PositiveInt, default=2000, help="test images to render")
    commands.add_subcommand("demo", demo, help="see the method at work, in minutes, without any download")


def _add_train(commands: Any, parser_class: Any, recipe_config: Any) -> None:
    train = parser_class(
        description="Train a recipe, or your own network and data; options override the recipe's."
    )
    train.add_argument("recipe", type=str, nargs="?", help="a name of `infopro list recipes`")
    train.add_argument(
        "--config", action="config", help="YAML file of the options below, as --print_config writes it"
    )
    for field in fields(recipe_config):
        kind = get_type_hints(type(recipe_config))[field.name]
        flag = f"--{field.name.replace('_', '-')}"
        train.add_argument(
            flag, type=kind, default=getattr(recipe_config, field.name), help=_help(field.name)
        )
    train.add_argument("--output", type=str, default=None, help="run folder (default: runs/RECIPE-seedN)")
    train.add_argument("--resume", action="store_true", help="go on from the run folder's last checkpoint")
    _add_until(train)
    _add_checkpoints(train)
    _add_processes(train)
    add_data_and_device(train)
    commands.add_subcommand("train", train, help="train a network, module by module or end to end")


def _add_until(train: Any) -> None:
    from jsonargparse.typing import PositiveInt

    train.add_argument(
        "--until",
        type=PositiveInt | None,
        default=None,
        help="end after this epoch of the schedule; --resume goes on (default: its last one)",
    )


def _add_checkpoints(train: Any) -> None:
    from jsonargparse.typing import PositiveInt

    train.add_argument(
        "--keep-checkpoints",
        type=PositiveInt,
        default=2,
        help="newest checkpoints that stay, besides the best epoch's",
    )


def _add_processes(train: Any) -> None:
    from jsonargparse.typing import PositiveFloat, PositiveInt

    train.add_argument(
        "--queue",
        type=PositiveInt,
        default=DEFAULT_QUEUE,
        help="batches under way to the next process before one waits",
    )
    train.add_argument(
        "--shard", action="store_true", help="share parameters out over the processes of a module (FSDP)"
    )
    train.add_argument(
        "--timeout", type=PositiveFloat, default=300.0, help="seconds without a sign after which a run ends"
    )


def _add_evaluate(commands: Any, parser_class: Any) -> None:
    evaluate = parser_class(
        description="Test the last checkpoint of a run: on masks as in training, or as the options say."
    )
    evaluate.add_argument("run", type=str, help="a folder that infopro train wrote")
    evaluate.add_argument(
        "--checkpoint",
        type=Literal["last", "best"],
        default="last",
        help="of the last epoch, or of the one with the best test result",
    )
    evaluate.add_argument(
        "--raw-weights",
        action="store_true",
        help="of a run with averaged weights: the weights that were trained, not their average",
    )
    add_inference(evaluate, usual="whole")
    add_data_and_device(evaluate, usual="the run's")
    commands.add_subcommand("evaluate", evaluate, help="test error or mIoU of a trained run")


def _add_list(commands: Any, parser_class: Any) -> None:
    listing = parser_class(description="Names that the other commands take.")
    listing.add_argument("kind", type=str, help=", ".join(LISTS))
    listing.add_argument(
        "pattern", type=str, nargs="?", default="*", help="names that match, as in 'timm/resnet*'"
    )
    commands.add_subcommand("list", listing, help="recipes, models, data sets, objectives, heads")


def recipe_named_in(arguments: list[str]) -> str | None:
    """The recipe that gives `train` its defaults: known before the options are parsed."""
    if arguments[:1] != ["train"]:
        return None
    rest = iter(arguments[1:])
    named = written = None
    for argument in rest:
        if not argument.startswith("-"):
            named = named or argument
        elif "=" not in argument and argument not in _SWITCHES:
            value = next(rest, None)
            written = _recipe_written_in(value) if argument == "--config" else written
        elif argument.startswith("--config="):
            written = _recipe_written_in(argument.partition("=")[2])
    return named or written


def _recipe_written_in(file: str | None) -> str | None:
    """The `recipe:` of a YAML file; what else is wrong with the file, the parser says."""
    import yaml

    try:
        content = yaml.safe_load(Path(file or "").read_text())
    except (OSError, yaml.YAMLError):
        return None
    name = content.get("recipe") if isinstance(content, dict) else None
    return None if name is None else str(name)


def configuration(options: Any) -> Any:
    """The run's configuration from the options of `train`."""
    from infopro.recipes import RunConfig, load

    values = {field.name: getattr(options, field.name) for field in fields(RunConfig)}
    as_tuples: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    config = RunConfig(**as_tuples)
    recipe = load(options.recipe).config if options.recipe else RunConfig()
    return _without_leftovers(config, recipe)


def _without_leftovers(config: Any, recipe: Any) -> Any:
    """A new K or objective does not keep the recipe's cuts, which nobody asked for."""
    kept_cuts, kept_k = config.cuts == recipe.cuts, config.num_modules == recipe.num_modules
    if config.objective == "end-to-end" and kept_cuts and kept_k:
        return replace(config, num_modules=1, cuts=None)
    return replace(config, cuts=None) if kept_cuts and not kept_k else config


def expanded(arguments: list[str]) -> list[str]:
    """--cuts a,b -> --cuts [a,b], --deterministic -> --deterministic=true."""
    values = [*arguments[1:], ""]
    result = [
        f"{argument}=true" if argument in _ALONE and value not in ("true", "false") else argument
        for argument, value in zip(arguments, values, strict=False)  # without arguments: ""
    ]
    for index, argument in enumerate(result):
        name, equals, value = argument.partition("=")
        if name.removeprefix("--") not in _SEQUENCES or not name.startswith("--"):
            continue
        if equals:
            result[index] = f"{name}={_as_sequence(name, value)}"
        elif index + 1 < len(result):
            result[index + 1] = _as_sequence(name, result[index + 1])
    return result


def _as_sequence(option: str, value: str) -> str:
    one_block = option == "--cuts" and value not in ("null", "")
    return f"[{value}]" if ("," in value or one_block) and not value.startswith("[") else value


def _help(name: str) -> str:
    from infopro.recipes import field_help

    return field_help()[name].replace("%", "%%")
